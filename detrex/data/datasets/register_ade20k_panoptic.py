"""ADE20K's 100 things and 50 kinds of stuff: ``ade20k_panoptic_train`` and ``..._val``.

Layout, below the folder of all data sets::

    ADEChallengeData2016/
        images/{training,validation}/*.jpg
        annotations_detectron2/{training,validation}/*.png  labels 0 to 149, 255 for none
        ade20k_panoptic_{train,val}/*.png                   the segments
        ade20k_panoptic_{train,val}.json                    the names are its categories
        ade20k_instance_{train,val}.json                    for evaluating boxes and masks
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from detrex.data.datasets.panoptic import load_panoptic_json, panoptic_metadata, register_panoptic
from detrex.data.datasets.registration import datasets_root, read_json

__all__ = [
    "get_metadata",
    "load_ade20k_panoptic_json",
    "register_ade20k_panoptic",
    "register_all_ade20k_panoptic",
]

load_ade20k_panoptic_json = load_panoptic_json


def get_metadata(root: str | None = None) -> dict[str, Any]:
    """The classes, from ``ade20k_panoptic_val.json``; see ``panoptic_metadata``.

    Args:
        root: the folder that has ``ADEChallengeData2016``; by default that of all data sets.

    Raises:
        FileNotFoundError: there is no such file.
    """
    base = os.path.join(root or datasets_root(), "ADEChallengeData2016")
    content = read_json(os.path.join(base, "ade20k_panoptic_val.json"), ["categories"])
    return panoptic_metadata(content["categories"])


register_ade20k_panoptic = partial(
    register_panoptic, evaluator_type="ade20k_panoptic_seg", ignore_label=255
)
"""Register a split; see :func:`~detrex.data.datasets.panoptic.register_panoptic`."""


def register_all_ade20k_panoptic(root: str) -> None:
    """Register the two splits; ``root`` is the folder that has ``ADEChallengeData2016``."""
    base = os.path.join(root, "ADEChallengeData2016")
    for split, folder in (("train", "training"), ("val", "validation")):
        register_ade20k_panoptic(
            f"ade20k_panoptic_{split}",
            None,
            os.path.join(base, "images", folder),
            os.path.join(base, f"ade20k_panoptic_{split}"),
            os.path.join(base, "annotations_detectron2", folder),
            os.path.join(base, f"ade20k_panoptic_{split}.json"),
            os.path.join(base, f"ade20k_instance_{split}.json"),
        )


register_all_ade20k_panoptic(datasets_root())
