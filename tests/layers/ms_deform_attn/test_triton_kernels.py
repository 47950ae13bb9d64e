"""The Triton kernels without a GPU: in Triton's interpreter, and compiled for GPUs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton")

from detrex.layers.ms_deform_attn import triton_kernels  # noqa: E402

HERE = Path(__file__).parent


def test_in_the_interpreter():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "triton_interpreted.py"],
        cwd=HERE,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def compile_kernel(kernel, dtype: str, unit: bool, capability: int, rows: int) -> str:
    """The kernel's PTX for 8 heads of 32 channels, 2 levels and 4 points."""
    numbers = {"M": 8, "D": 32, "L": 2, "P": 4, "ROWS": rows, "COLUMNS": 32}
    known = {**numbers, "DTYPE": triton.language.float32, **({} if unit else {"unit": None})}
    types = {"sizes": ("fp32",) * 4, "num_tokens": "i32", "num_queries": "i32", "unit": "*fp64"}
    types |= dict.fromkeys(("value", "out", "grad"), f"*{dtype}")
    types["grad_value"] = "*i64" if unit else "*fp32"
    types |= dict.fromkeys(known, "constexpr")
    names = kernel.arg_names
    source = triton.compiler.ASTSource(
        kernel,
        {name: types.get(name, "*fp32") for name in names},
        {(names.index(name),): value for name, value in known.items() if name in names},
        {(i,): [["tt.divisibility", 16]] for i in range(names.index("sizes"))},
    )
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": 1}).asm["ptx"]


def test_compiled_for_a_hopper_gpu(monkeypatch, tmp_path):
    """Rows are read, and added to, by instructions on four numbers; nothing waits at barriers."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    forward = compile_kernel(triton_kernels._forward_kernel, "fp32", False, 90, 4)
    backward = compile_kernel(triton_kernels._backward_kernel, "fp32", False, 90, 4)
    for code in (forward, backward):
        assert "ld.global.v4" in code and "bar.sync" not in code
    assert "add.v4.f32" in backward


def test_compiled_for_an_ampere_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    backward = compile_kernel(triton_kernels._backward_kernel, "bf16", True, 80, 1)
    assert "add.u64" in backward and "bar.sync" not in backward


def test_says_when_triton_is_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, triton_kernels.__name__)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match="Triton is not installed"):
        importlib.import_module(triton_kernels.__name__)


def test_says_when_triton_is_too_old(monkeypatch):
    monkeypatch.setattr(triton_kernels, "triton", SimpleNamespace(__version__="3.2.0+git1"))
    with pytest.raises(ImportError, match=r"Triton 3\.2\.0\+git1 is too old"):
        triton_kernels._check_triton()


def test_says_when_triton_cannot_start(monkeypatch):
    def fail():
        raise RuntimeError("Failed to find C compiler.")

    driver = SimpleNamespace(active=SimpleNamespace(get_current_target=fail))
    fake = SimpleNamespace(__version__="3.8.0", runtime=SimpleNamespace(driver=driver))
    monkeypatch.setattr(triton_kernels, "triton", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ImportError, match=r"C compiler .* headers: Failed to find C compiler"):
        triton_kernels._check_triton()
