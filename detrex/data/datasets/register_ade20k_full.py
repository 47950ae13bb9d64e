"""ADE20K with labels of 847 classes: ``ade20k_full_sem_seg_train`` and ``..._val``.

Layout, below the folder of all data sets::

    ADE20K_2021_17_01/
        images_detectron2/{training,validation}/*.jpg
        annotations_detectron2/{training,validation}/*.tif  labels 0 to 846, 65535 for none
        classes.txt                                         if wanted: 847 names, one a line

The data set does not say which 847 of its many names these are. Without a ``classes.txt`` classes
are named by their number.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from detectron2.utils.file_io import PathManager

from detrex.data.datasets.registration import datasets_root, read_lines, register_sem_seg

__all__ = ["register_all_ade20k_full"]

_NUM_CLASSES = 847


def register_all_ade20k_full(root: str) -> None:
    """Register the two splits; ``root`` is the folder that has ``ADE20K_2021_17_01``."""
    base = os.path.join(root, "ADE20K_2021_17_01")
    for split, folder in (("train", "training"), ("val", "validation")):
        register_sem_seg(
            f"ade20k_full_sem_seg_{split}",
            os.path.join(base, "images_detectron2", folder),
            os.path.join(base, "annotations_detectron2", folder),
            partial(_read_classes, os.path.join(base, "classes.txt")),
            ignore_label=65535,
            gt_ext="tif",
        )


def _read_classes(path: str) -> dict[str, Any]:
    if not PathManager.isfile(path):
        return {"stuff_classes": [f"class {i}" for i in range(_NUM_CLASSES)]}
    names = read_lines(path)
    if len(names) != _NUM_CLASSES:
        raise ValueError(f"{path} has {len(names)} names; give it {_NUM_CLASSES}, one a line.")
    return {"stuff_classes": names}


register_all_ade20k_full(datasets_root())
