"""Mapillary Vistas with labels of 65 classes: ``mapillary_vistas_sem_seg_{train,val}``.

Layout, below the folder of all data sets, for version 1.2 of the data set::

    mapillary_vistas/
        config.json                                 the names
        {training,validation}/images/*.jpg
        {training,validation}/labels/*.png          labels 0 to 64, 65 for none
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from detrex.data.datasets.registration import datasets_root, read_json, register_sem_seg

__all__ = ["register_all_mapillary_vistas"]

_NO_CLASS = 65


def register_all_mapillary_vistas(root: str) -> None:
    """Register the two splits; ``root`` is the folder that has ``mapillary_vistas``."""
    base = os.path.join(root, "mapillary_vistas")
    for split, folder in (("train", "training"), ("val", "validation")):
        register_sem_seg(
            f"mapillary_vistas_sem_seg_{split}",
            os.path.join(base, folder, "images"),
            os.path.join(base, folder, "labels"),
            partial(_read_classes, os.path.join(base, "config.json")),
            ignore_label=_NO_CLASS,
        )


def _read_classes(path: str) -> dict[str, Any]:
    labels = read_json(path, ["labels"])["labels"][:_NO_CLASS]
    return {
        "stuff_classes": [label["readable"] for label in labels],
        "stuff_colors": [list(label["color"]) for label in labels],
    }


register_all_mapillary_vistas(datasets_root())
