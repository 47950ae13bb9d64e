from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def coco(tmp_path):
    """Three images of 40 x 30 pixels, two classes with ids 3 and 7, the last image empty."""
    root = tmp_path / "images"
    root.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{index}.png")
    return {
        "info": {},
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in range(3)
        ],
        "annotations": [
            _annotation(1, 10, 7, [1, 2, 10, 12]),
            _annotation(2, 10, 3, [20.5, 5, 8, 8]),
            _annotation(3, 11, 3, [0, 0, 40, 30]),
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


def _annotation(annotation_id, image_id, category_id, bbox):
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
    }


@pytest.fixture
def write(tmp_path):
    """Writes a COCO dict beside the images and returns (json_file, image_root)."""

    def write_json(content, name="data.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path), str(tmp_path / "images")

    return write_json
