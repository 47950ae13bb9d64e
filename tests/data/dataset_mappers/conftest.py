from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

HEIGHT, WIDTH = 24, 32


class Scene:
    """An image of 32 x 24 pixels with two objects on three kinds of ground, drawn in all formats.

    Class 1 and 2 are things, 5, 6 and 7 stuff. Pixels of column 0 have no class.
    """

    def __init__(self, folder):
        self.pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(self.pixels).save(folder / "image.png")
        ids = np.full((HEIGHT, WIDTH), 70_000)  # more than two colors can say
        ids[:10], ids[:, 20:] = 300, 9
        ids[4:12, 3:9], ids[14:20, 16:30], ids[:, 0] = 256**2, 2, 0
        self.ids = ids
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=2)
        Image.fromarray(colors.astype(np.uint8)).save(folder / "pan.png")
        self.segments = {70_000: 5, 300: 6, 9: 7, 256**2: 1, 2: 2}  # id -> class
        self.labels = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
        for segment, category in self.segments.items():
            self.labels[ids == segment] = category
        Image.fromarray(self.labels).save(folder / "sem.png")
        image = {"image_id": 4, "height": HEIGHT, "width": WIDTH}
        self.image = {"file_name": str(folder / "image.png"), **image}
        self.folder = folder

    @property
    def instances(self):
        crowd = {**_object((0, 0, 5, 5), 2), "iscrowd": 1}
        objects = [_object((3, 4, 9, 12), 1), crowd, _object((16, 14, 30, 20), 2)]
        return {**self.image, "annotations": objects}

    @property
    def panoptic(self):
        infos = [{"id": i, "category_id": c, "iscrowd": 0} for i, c in self.segments.items()]
        return {
            **self.image,
            "pan_seg_file_name": str(self.folder / "pan.png"),
            "segments_info": infos,
        }

    @property
    def semantic(self):
        return {**self.image, "sem_seg_file_name": str(self.folder / "sem.png")}


def _object(box, category):
    x0, y0, x1, y1 = box
    return {
        "bbox": [x0, y0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
    }


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)
