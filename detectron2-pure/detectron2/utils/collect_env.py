"""A table of what matters for bug reports: ``python -m detectron2.utils.collect_env``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys

import torch
from tabulate import tabulate

__all__ = ["collect_env_info", "collect_torch_env"]

_PACKAGES = (
    "torchvision",
    "timm",
    "numpy",
    "Pillow",
    "fvcore",
    "iopath",
    "omegaconf",
    "hydra-core",
    "pycocotools",
    "faster-coco-eval",
)


def collect_torch_env() -> str:
    """How torch was built."""
    return torch.__config__.show()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _this_package() -> str:
    import detectron2

    version = getattr(detectron2, "__version__", _version("detectron2"))
    return f"{version} @ {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}"


def _driver_version() -> str:
    """The NVIDIA driver's version, as nvidia-smi says it."""
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi not found"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        return f"nvidia-smi failed ({e})"
    return ", ".join(sorted(set(done.stdout.split())))


def _gpus() -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return [("GPU available", "no")]
    by_name: dict[str, list[str]] = {}
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        name = f"{torch.cuda.get_device_name(i)} (arch={major}.{minor})"
        by_name.setdefault(name, []).append(str(i))
    rows = [("GPU " + ",".join(ids), name) for name, ids in by_name.items()]
    return [
        ("GPU available", "yes"),
        *rows,
        ("Driver version", _driver_version()),
        ("CUDA of torch", str(torch.version.cuda)),
        ("cuDNN of torch", str(torch.backends.cudnn.version())),
    ]


def collect_env_info() -> str:
    """Versions, devices and relevant variables, as a table."""
    rows = [
        ("sys.platform", sys.platform),
        ("Python", platform.python_version()),
        ("CPU cores", str(os.cpu_count())),
        ("detectron2 (pure Python)", _this_package()),
        ("DETECTRON2_DATASETS", os.environ.get("DETECTRON2_DATASETS", "<not set>")),
        ("PyTorch", f"{torch.__version__} @ {os.path.dirname(torch.__file__)}"),
        ("PyTorch debug build", str(torch.version.debug)),
        *_gpus(),
        *((name, _version(name)) for name in _PACKAGES),
    ]
    # The compiler flags among the build settings fill a screen and explain nothing.
    build = [line for line in collect_torch_env().splitlines() if "Build settings" not in line]
    return tabulate(rows) + "\n" + "\n".join(build)


if __name__ == "__main__":
    print(collect_env_info())
