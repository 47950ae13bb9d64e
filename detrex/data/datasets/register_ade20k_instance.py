"""ADE20K's 100 classes of things: ``ade20k_instance_train`` and ``ade20k_instance_val``.

Layout, below the folder of all data sets::

    ADEChallengeData2016/
        images/{training,validation}/*.jpg
        ade20k_instance_{train,val}.json    COCO's format; the names are its categories
"""

from __future__ import annotations

import os
from functools import partial

from detectron2.data.datasets import load_coco_json

from detrex.data.datasets.registration import datasets_root, register_dataset

__all__ = ["register_all_ade20k_instance"]


def register_all_ade20k_instance(root: str) -> None:
    """Register the two splits; ``root`` is the folder that has ``ADEChallengeData2016``."""
    base = os.path.join(root, "ADEChallengeData2016")
    for split, folder in (("train", "training"), ("val", "validation")):
        name = f"ade20k_instance_{split}"
        images = os.path.join(base, "images", folder)
        annotations = os.path.join(base, f"ade20k_instance_{split}.json")
        register_dataset(
            name,
            partial(load_coco_json, annotations, images, name),
            image_root=images,
            json_file=annotations,
            evaluator_type="coco",
        )


register_all_ade20k_instance(datasets_root())
