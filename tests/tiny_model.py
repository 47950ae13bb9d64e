"""A config with a trained `tiny_detector.TinyDetector`, and pictures, for tests of tools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_detector import TinyDetector

CONFIG = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detrex.config import get_config
from tiny_detector import TinyDetector

model = L(TinyDetector)(num_classes=2)
optimizer = get_config("common/optim.py").AdamW
dataloader = get_config("common/data/custom.py").dataloader
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
dataloader.train.mapper.augmentation = [L(T.RandomFlip)(prob=1.0)]
dataloader.train.mapper.augmentation_with_crop = None
dataloader.test.mapper.augmentation = [
    L(T.CropTransform)(x0=0, y0=0, w=20, h=20, orig_w=40, orig_h=32)
]
"""


def write_config(folder: Path) -> Path:
    path = folder / "tiny.py"
    path.write_text(CONFIG)
    return path


def write_weights(folder: Path, **extras: object) -> Path:
    """Of a model that is sure of one of two classes in every picture."""
    torch.manual_seed(3)
    model = TinyDetector(2)
    with torch.no_grad():
        model.label.bias[1] += 4
    path = folder / "model.pth"
    torch.save({"model": model.state_dict(), **extras}, path)
    return path


def picture(seed: int, height: int = 32, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_pictures(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(seed)).save(path)
    return paths


BOX = (4, 6, 20, 12)
"""The object in each picture of ``write_scenes``: left, top, width, height."""


def write_scenes(folder: Path, *names: str) -> tuple[Path, list[str]]:
    """A data set of pictures with an object each, and the overrides that make a config use it."""
    write_pictures(folder, *names)
    images, annotations = [], []
    for i, name in enumerate(names, 1):
        images.append({"id": i, "file_name": name, "height": 32, "width": 40})
        shape = {"bbox": list(BOX), "area": BOX[2] * BOX[3], "iscrowd": 0}
        annotations.append({"id": i, "image_id": i, "category_id": 7 + i % 2, **shape})
    categories = [{"id": 7, "name": "even"}, {"id": 8, "name": "odd"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "scenes.json"
    path.write_text(json.dumps(content))
    overrides = [
        f"dataloader.{split}.dataset.{key}={value}"
        for split in ("train", "test")
        for key, value in (("json_file", path), ("image_root", folder))
    ]
    return path, overrides
