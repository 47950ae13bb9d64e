"""The names that are registered from the start: COCO 2014 and 2017, and LVIS v1.

Their files are expected under ``$DETECTRON2_DATASETS`` (``./datasets`` by default), read when
this module is imported, in COCO's usual layout::

    coco/annotations/instances_{train,val}2017.json
    coco/{train,val}2017/*.jpg
    lvis/lvis_v1_{train,val}.json

Registering reads nothing, so no file has to be there.
"""

from __future__ import annotations

import os

from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.data.datasets.coco import register_coco_instances
from detectron2.data.datasets.coco_panoptic import (
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.lvis import get_lvis_instances_meta, register_lvis_instances

__all__ = ["register_all_coco", "register_all_lvis"]

# Name -> (folder of the images, annotations), below coco/.
_COCO = {
    "coco_2014_train": ("train2014", "instances_train2014"),
    "coco_2014_val": ("val2014", "instances_val2014"),
    "coco_2014_minival": ("val2014", "instances_minival2014"),
    "coco_2014_valminusminival": ("val2014", "instances_valminusminival2014"),
    "coco_2017_train": ("train2017", "instances_train2017"),
    "coco_2017_val": ("val2017", "instances_val2017"),
    "coco_2017_test": ("test2017", "image_info_test2017"),
    "coco_2017_test-dev": ("test2017", "image_info_test-dev2017"),
    "coco_2017_val_100": ("val2017", "instances_val2017_100"),
}

_COCO_PERSON = {
    "keypoints_coco_2014_train": ("train2014", "person_keypoints_train2014"),
    "keypoints_coco_2014_val": ("val2014", "person_keypoints_val2014"),
    "keypoints_coco_2014_minival": ("val2014", "person_keypoints_minival2014"),
    "keypoints_coco_2014_valminusminival": (
        "val2014",
        "person_keypoints_valminusminival2014",
    ),
    "keypoints_coco_2017_train": ("train2017", "person_keypoints_train2017"),
    "keypoints_coco_2017_val": ("val2017", "person_keypoints_val2017"),
    "keypoints_coco_2017_val_100": ("val2017", "person_keypoints_val2017_100"),
}

# Split -> (folder of the images, instances) of coco_2017_{split}_panoptic.
_COCO_PANOPTIC = {
    "train": ("train2017", "instances_train2017"),
    "val": ("val2017", "instances_val2017"),
    "val_100": ("val2017", "instances_val2017_100"),
}


def register_all_coco(root: str) -> None:
    """Register COCO's instances, person key points and panoptic segmentation.

    Args:
        root: folder that holds ``coco``.
    """
    coco = os.path.join(root, "coco")
    annotations = os.path.join(coco, "annotations")
    for names, family in ((_COCO, "coco"), (_COCO_PERSON, "coco_person")):
        for name, (folder, instances) in names.items():
            register_coco_instances(
                name,
                _get_builtin_metadata(family),
                os.path.join(annotations, instances + ".json"),
                os.path.join(coco, folder),
            )
    for split, (folder, instances) in _COCO_PANOPTIC.items():
        name, part = f"coco_2017_{split}_panoptic", split.replace("_", "2017_")
        part = part if "2017" in part else part + "2017"
        images = os.path.join(coco, folder)
        panoptic_root = os.path.join(coco, f"panoptic_{part}")
        panoptic_json = os.path.join(annotations, f"panoptic_{part}.json")
        instances_json = os.path.join(annotations, instances + ".json")
        register_coco_panoptic_separated(
            name,
            _get_builtin_metadata("coco_panoptic_separated"),
            images,
            panoptic_root,
            panoptic_json,
            os.path.join(coco, f"panoptic_stuff_{part}"),
            instances_json,
        )
        register_coco_panoptic(
            name,
            _get_builtin_metadata("coco_panoptic_standard"),
            images,
            panoptic_root,
            panoptic_json,
            instances_json,
        )


_LVIS = {
    "lvis_v1_train": "lvis_v1_train",
    "lvis_v1_val": "lvis_v1_val",
    "lvis_v1_test_dev": "lvis_v1_image_info_test_dev",
    "lvis_v1_test_challenge": "lvis_v1_image_info_test_challenge",
}


def register_all_lvis(root: str) -> None:
    """Register LVIS v1, whose images are COCO's.

    Args:
        root: folder that holds ``lvis`` and ``coco``.
    """
    for name, file in _LVIS.items():
        register_lvis_instances(
            name,
            get_lvis_instances_meta(name),
            os.path.join(root, "lvis", file + ".json"),
            os.path.join(root, "coco"),
        )


_root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
register_all_coco(_root)
register_all_lvis(_root)
