"""What the reference implementation measured on whole models, and the batch it measured on.

``reference/models/NAME.json.gz`` holds the parameters' names and shapes there (``tied`` names share
a storage), losses, gradient norms and matches; ``NAME.npz`` evaluation outputs. Weights follow
:mod:`reference_recipe`.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from reference_recipe import recipe_value
from torch import Tensor

FOLDER = Path(__file__).parent / "reference" / "models"


def facts(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def outputs(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def state_dict(name: str) -> dict[str, Tensor]:
    """The reference's weights under the reference's names."""
    known = facts(name)
    shapes = {**known["parameters"], **known["buffers"]}
    owner = {key: min(group) for group in known["tied"] for key in group}
    state = {}
    for key, shape in shapes.items():
        value = recipe_value(owner.get(key, key), tuple(shape))
        if value is not None:
            state[key] = torch.from_numpy(value)
    return state


def batch(scale: int = 1) -> list[dict[str, Any]]:
    """Two images of 192 x 256 with three boxes and one, or of ``scale`` times these sizes."""
    noise = np.random.RandomState(7)
    corners = [
        [(20.5, 30.25, 120, 150.75), (140, 16, 250.5, 100), (60, 90, 200, 185.5)],
        [(32, 24, 190.5, 140.25)],
    ]
    classes = [[3, 17, 56], [41]]
    inputs = []
    for boxes, labels in zip(corners, classes, strict=True):
        height, width = 192 * scale, 256 * scale
        image = noise.randint(0, 256, (3, height, width)).astype(np.float32)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor(boxes) * scale)
        instances.gt_classes = torch.tensor(labels)
        inputs.append(
            {
                "image": torch.from_numpy(image),
                "height": height,
                "width": width,
                "instances": instances,
            }
        )
    return inputs
