"""COCO panoptic with labels per pixel: ``coco_2017_{train,val,val_100}_panoptic_with_sem_seg``.

Layout, below the folder of all data sets::

    coco/
        {train,val}2017/*.jpg
        annotations/{instances,panoptic}_{train,val}2017.json
        panoptic_{train,val}2017/*.png          the segments
        panoptic_semseg_{train,val}2017/*.png   labels 0 to 132, 255 for none

The labels are made of the segments, and number the classes as ``get_metadata`` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from detrex.data.datasets.panoptic import load_panoptic_json, panoptic_metadata, register_panoptic
from detrex.data.datasets.registration import datasets_root

__all__ = [
    "get_metadata",
    "load_coco_panoptic_json",
    "register_all_coco_panoptic_annos_sem_seg",
    "register_coco_panoptic_annos_sem_seg",
]

load_coco_panoptic_json = load_panoptic_json


def get_metadata() -> dict[str, Any]:
    """COCO's 80 things and 53 kinds of stuff; see ``panoptic_metadata``."""
    metadata = panoptic_metadata(COCO_CATEGORIES)
    names = [n.replace("-other", "").replace("-merged", "") for n in metadata["stuff_classes"]]
    return {**metadata, "stuff_classes": names}


def register_coco_panoptic_annos_sem_seg(
    name: str,
    metadata: Mapping[str, Any] | None,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str | None = None,
) -> None:
    """Register ``{name}_with_sem_seg``; see ``register_panoptic`` for the arguments."""
    register_panoptic(
        f"{name}_with_sem_seg",
        metadata,
        image_root,
        panoptic_root,
        sem_seg_root,
        panoptic_json,
        instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
    )


def register_all_coco_panoptic_annos_sem_seg(root: str) -> None:
    """Register the splits; ``root`` is the folder that has ``coco``."""
    coco = os.path.join(root, "coco")
    for split, part in (("train", "2017"), ("val", "2017"), ("val_100", "2017_100")):
        folder = split.split("_")[0]
        register_coco_panoptic_annos_sem_seg(
            f"coco_2017_{split}_panoptic",
            get_metadata(),
            os.path.join(coco, f"{folder}2017"),
            os.path.join(coco, f"panoptic_{folder}{part}"),
            os.path.join(coco, "annotations", f"panoptic_{folder}{part}.json"),
            os.path.join(coco, f"panoptic_semseg_{folder}{part}"),
            os.path.join(coco, "annotations", f"instances_{folder}{part}.json"),
        )


register_all_coco_panoptic_annos_sem_seg(datasets_root())
