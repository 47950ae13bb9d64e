"""The report on the environment says what runs and why."""

from __future__ import annotations

import subprocess
import sys

import detrex
from detrex.collect_env import deformable_attention, detrex_info
from detrex.layers.ms_deform_attn import use_implementation


def test_it_says_what_computes_deformable_attention():
    assert deformable_attention().splitlines()[0] == "deformable attention on cpu: numba"
    with use_implementation("pytorch"):
        assert deformable_attention().splitlines()[0] == (
            "deformable attention on cpu: pytorch; not numba: pytorch was asked for"
        )


def test_it_names_versions():
    lines = detrex_info().splitlines()
    assert lines[0] == f"detrex {detrex.__version__}"
    assert "numba 0." in lines[1]
    assert "not installed" not in lines[1].replace("triton not installed", "")


def test_it_is_a_command():
    run = subprocess.run(
        [sys.executable, "-m", "detrex.collect_env"], capture_output=True, text=True, check=True
    )
    assert "PyTorch" in run.stdout
    assert "deformable attention on cpu: numba" in run.stdout
