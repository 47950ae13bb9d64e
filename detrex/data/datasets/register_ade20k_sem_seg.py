"""ADE20K with labels of 150 classes: ``ade20k_sem_seg_train`` and ``ade20k_sem_seg_val``.

The full detectron2 registers these names itself; then they stay as they are. Layout, below the
folder of all data sets::

    ADEChallengeData2016/
        images/{training,validation}/*.jpg
        annotations_detectron2/{training,validation}/*.png  labels 0 to 149, 255 for none
        objectInfo150.txt                                   the names
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from detrex.data.datasets.registration import datasets_root, read_lines, register_sem_seg

__all__ = ["register_all_ade20k_sem_seg"]


def register_all_ade20k_sem_seg(root: str) -> None:
    """Register the two splits; ``root`` is the folder that has ``ADEChallengeData2016``."""
    base = os.path.join(root, "ADEChallengeData2016")
    for split, folder in (("train", "training"), ("val", "validation")):
        register_sem_seg(
            f"ade20k_sem_seg_{split}",
            os.path.join(base, "images", folder),
            os.path.join(base, "annotations_detectron2", folder),
            partial(_read_classes, os.path.join(base, "objectInfo150.txt")),
        )


def _read_classes(path: str) -> dict[str, Any]:
    """Names: the last column of a table with a header, where synonyms follow after commas."""
    rows = [line.split("\t") for line in read_lines(path)[1:]]
    return {"stuff_classes": [row[-1].split(",")[0].strip() for row in rows]}


register_all_ade20k_sem_seg(datasets_root())
