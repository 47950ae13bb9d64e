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


class FakeGPU:
    """What Triton needs to know of a GPU to compile for it."""

    def __init__(self, capability: int):
        self.target = triton.backends.compiler.GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self):
        return self.target


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """``compiled(capability, inputs)``: machine code for a GPU of what runs forward and backward,
    which is compiled as for a launch, and not launched."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delitem(sys.modules, triton_kernels.__name__)
    fresh = importlib.import_module(triton_kernels.__name__)  # kernels remember their GPU
    codes: list[str] = []
    run = triton.JITFunction.run

    def only_compile(self, *args, **options):
        codes.append(run(self, *args, **{**options, "warmup": True}).asm["ptx"])

    monkeypatch.setattr(triton.JITFunction, "run", only_compile)

    def compile_for(capability: int, *inputs) -> tuple[str, str]:
        monkeypatch.setattr(triton.runtime.driver, "_active", FakeGPU(capability))
        monkeypatch.setattr(fresh, "_added_at_once", lambda sums: 4 if capability >= 90 else 1)
        fresh.backward(fresh.forward(*inputs), *inputs)
        return codes[-2], codes[-1]

    return compile_for


def inputs(*shapes: tuple[int, int], queries: int, dtype: torch.dtype = torch.float32):
    """Of 8 heads with 32 channels and 4 points, with any numbers."""
    tokens = sum(h * w for h, w in shapes)
    value = torch.zeros(1, tokens, 8, 32, dtype=dtype)
    locations = torch.zeros(1, queries, 8, len(shapes) * 4, 2)
    return value, [size for shape in shapes for size in (*shape, 4)], locations, locations[..., 0]


def test_compiled_for_hopper(compiled):
    """Rows are read, and added to, by instructions on four numbers; nothing waits at barriers."""
    forward, backward = compiled(90, *inputs((4, 6), (2, 3), queries=7))
    assert "ld.global.v4" in forward and "bar.sync" not in forward
    assert "ld.global.v4" in backward and "bar.sync" not in backward
    assert "add.v4.f32" in backward
    for shapes, queries in [(((96, 32), (1, 1)), 1), (((50, 67), (16, 17)), 48)]:
        again = compiled(90, *inputs(*shapes, queries=queries))
        assert again == (forward, backward), "another image size needs another kernel"


def test_compiled_for_ampere(compiled):
    torch.use_deterministic_algorithms(True)
    try:
        forward, backward = compiled(80, *inputs((4, 6), queries=7, dtype=torch.bfloat16))
    finally:
        torch.use_deterministic_algorithms(False)
    assert "ld.global.v4" in forward and "bar.sync" not in forward
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
