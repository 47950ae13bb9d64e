"""Mapillary Vistas' 37 things and 28 kinds of stuff: ``mapillary_vistas_panoptic_{train,val}``.

Layout, below the folder of all data sets, for version 1.2 of the data set::

    mapillary_vistas/{training,validation}/
        images/*.jpg
        labels/*.png                    labels 0 to 64, 65 for none
        panoptic/*.png                  the segments
        panoptic/panoptic_2018.json     the names are its categories
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from detrex.data.datasets.panoptic import load_panoptic_json, panoptic_metadata, register_panoptic
from detrex.data.datasets.registration import datasets_root, read_json

__all__ = [
    "get_metadata",
    "load_mapillary_vistas_panoptic_json",
    "register_all_mapillary_vistas_panoptic",
    "register_mapillary_vistas_panoptic",
]

load_mapillary_vistas_panoptic_json = load_panoptic_json


def get_metadata(root: str | None = None) -> dict[str, Any]:
    """The classes, from the json of the validation set; see ``panoptic_metadata``.

    Args:
        root: the folder that has ``mapillary_vistas``; by default that of all data sets.

    Raises:
        FileNotFoundError: there is no such file.
    """
    base = os.path.join(root or datasets_root(), "mapillary_vistas", "validation", "panoptic")
    content = read_json(os.path.join(base, "panoptic_2018.json"), ["categories"])
    return panoptic_metadata(content["categories"])


register_mapillary_vistas_panoptic = partial(
    register_panoptic, evaluator_type="mapillary_vistas_panoptic_seg", ignore_label=65
)
"""Register a split; see :func:`~detrex.data.datasets.panoptic.register_panoptic`."""


def register_all_mapillary_vistas_panoptic(root: str) -> None:
    """Register the two splits; ``root`` is the folder that has ``mapillary_vistas``."""
    base = os.path.join(root, "mapillary_vistas")
    for split, folder in (("train", "training"), ("val", "validation")):
        register_mapillary_vistas_panoptic(
            f"mapillary_vistas_panoptic_{split}",
            None,
            os.path.join(base, folder, "images"),
            os.path.join(base, folder, "panoptic"),
            os.path.join(base, folder, "labels"),
            os.path.join(base, folder, "panoptic", "panoptic_2018.json"),
        )


register_all_mapillary_vistas_panoptic(datasets_root())
