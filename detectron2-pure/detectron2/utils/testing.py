"""What tests of detection code need again and again."""

from __future__ import annotations

import io
import os
import tempfile
import unittest
from typing import Any

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils.env import TORCH_VERSION

__all__ = [
    "assert_instances_allclose",
    "get_model_no_weights",
    "get_sample_coco_image",
    "min_torch_version",
    "random_boxes",
    "reload_lazy_config",
    "reload_script_model",
    "skipIfOnCPUCI",
    "skipIfUnsupportedMinTorchVersion",
]


def get_model_no_weights(config_path: str) -> torch.nn.Module:
    """The model of a config of the model zoo, with its initial weights."""
    return instantiate(model_zoo.get_config(config_path).model)


def random_boxes(
    num_boxes: int, max_coord: float = 100, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Random XYXY boxes (num_boxes, 4) with positive sides.

    Args:
        num_boxes: how many.
        max_coord: the upper left corner lies below half of it, and a side is at most half of it.
        device: where.
    """
    boxes = torch.rand(num_boxes, 4, device=device) * (max_coord * 0.5)
    boxes.clamp_(min=1.0)  # tiny boxes make overlaps numerically unstable
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def get_sample_coco_image(tensor: bool = True) -> torch.Tensor | np.ndarray:
    """A picture in BGR, uint8: the first of ``coco_2017_val_100``, or a made-up one without it.

    Args:
        tensor: return a tensor (3, H, W) instead of an array (H, W, 3).
    """
    try:
        image = read_image(DatasetCatalog.get("coco_2017_val_100")[0]["file_name"], format="BGR")
    except (KeyError, FileNotFoundError):
        coarse = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
        image = coarse.repeat(32, axis=0).repeat(32, axis=1)  # (480, 640, 3)
    return torch.from_numpy(image.transpose(2, 0, 1).copy()) if tensor else image


def assert_instances_allclose(
    input: Instances,
    other: Instances,
    *,
    rtol: float = 1e-5,
    msg: str = "",
    size_as_tensor: bool = False,
) -> None:
    """Check that two ``Instances`` have the same size and fields, and nearly the same values.

    Args:
        input: one.
        other: the other.
        rtol: allowed difference, relative to the largest value of a field; for boxes to the
            longer side of the image.
        msg: put before the error.
        size_as_tensor: the sizes are tensors (of traced models).

    Raises:
        AssertionError: they differ.
        ValueError: a field is of a kind that cannot be compared.
    """
    sizes = [x.image_size for x in (input, other)]
    if size_as_tensor:
        sizes = [tuple(int(v) for v in torch.as_tensor(size)) for size in sizes]  # type: ignore[misc]
    assert sizes[0] == sizes[1], f"{msg} image_size is {sizes[0]} vs. {sizes[1]}!"
    names = [sorted(x.get_fields()) for x in (input, other)]
    assert names[0] == names[1], f"{msg} Fields are {names[0]} vs. {names[1]}!"
    for name in names[0]:
        a, b = input.get(name), other.get(name)
        close = _are_close(a, b, rtol, max(sizes[0]))
        assert close, f"{msg} {name} differs too much! Got {a} vs. {b}"


def _are_close(a: Any, b: Any, rtol: float, side: float) -> bool:
    if isinstance(a, (Boxes, ROIMasks)):
        scale = side if isinstance(a, Boxes) else 1.0
        a, b = a.tensor, b.tensor
    elif isinstance(a, torch.Tensor):
        scale = float(a.abs().max()) if a.is_floating_point() and a.numel() else 0.0
    else:
        raise ValueError(f"A field of type {type(a).__name__} cannot be compared.")
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=rtol * scale)


def reload_script_model(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A scripted module after saving and loading it."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def reload_lazy_config(cfg: Any) -> Any:
    """A config after saving and loading it as yaml."""
    with tempfile.TemporaryDirectory(prefix="detectron2") as folder:
        path = os.path.join(folder, "cfg.yaml")
        LazyConfig.save(cfg, path)
        return LazyConfig.load(path)


def min_torch_version(min_version: str) -> bool:
    """Whether torch is at least of a version as "2.1"."""
    return tuple(int(part) for part in min_version.split(".")[:2]) <= TORCH_VERSION


def skipIfOnCPUCI(test: Any) -> Any:
    """Skip a slow test where ``CI`` is set and there is no GPU."""
    is_cpu_ci = bool(os.environ.get("CI")) and not torch.cuda.is_available()
    return unittest.skipIf(is_cpu_ci, "Too slow for a CI without a GPU.")(test)


def skipIfUnsupportedMinTorchVersion(min_version: str) -> Any:
    """Skip a test with a torch older than a version as "2.1"."""
    return unittest.skipIf(
        not min_torch_version(min_version), f"Needs torch {min_version} or newer."
    )
