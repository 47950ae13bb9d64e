"""What a bug report needs: ``python -m detrex.collect_env``."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import torch
from detectron2.utils.collect_env import collect_env_info

from detrex import __version__
from detrex.layers.ms_deform_attn import implementation

PACKAGES = ("timm", "numba", "triton", "scipy", "omegaconf", "pycocotools", "faster-coco-eval")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def deformable_attention() -> str:
    """A line for each kind of device that is here: what computes deformable attention, and why
    nothing faster does."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    lines = []
    for device in devices:
        name, passed_over = implementation(device)
        reasons = "".join(f"; not {other}: {why}" for other, why in passed_over.items())
        lines.append(f"deformable attention on {device}: {name}{reasons}")
    return "\n".join(lines)


def detrex_info() -> str:
    """detrex, the packages it builds on, and what it chose for this machine."""
    packages = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    return "\n".join(
        [f"detrex {__version__}", f"with {packages}", f"torch uses {threads}"]
        + [deformable_attention()]
    )


def main() -> None:
    print(collect_env_info())
    print()
    print(detrex_info())


if __name__ == "__main__":
    main()
