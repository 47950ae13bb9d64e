"""A detector and a data set small enough to train in a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures with a bright square each, as COCO json and files; no two are alike."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(12):
        picture = rng.integers(0, 60, (32, 40, 3), dtype=np.uint8)
        x, y, size = (int(v) for v in (rng.integers(0, 24), rng.integers(0, 16), 8 + i % 5))
        picture[y : y + size, x : x + size] = 200 + i
        Image.fromarray(picture).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 32, "width": 40})
        box = {"bbox": [x, y, size, size], "area": size * size, "iscrowd": 0}
        annotations.append({"id": i + 1, "image_id": i, "category_id": 1 + i % 2, **box})
    categories = [{"id": 1, "name": "even"}, {"id": 2, "name": "odd"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "scenes.json").write_text(json.dumps(content))
    return folder
