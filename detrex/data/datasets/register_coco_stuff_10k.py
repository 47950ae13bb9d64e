"""COCO-Stuff 10k: ``coco_2017_train_stuff_10k_sem_seg`` and ``coco_2017_test_...``.

80 things and 91 kinds of stuff (arXiv:1612.03716). Layout, below the folder of all data sets::

    coco/coco_stuff_10k/
        images_detectron2/{train,test}/*.jpg
        annotations_detectron2/{train,test}/*.png   labels 0 to 170, 255 for none
"""

from __future__ import annotations

import os
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from detrex.data.datasets.registration import datasets_root, register_sem_seg

__all__ = ["register_all_coco_stuff_10k"]

# In the order of their ids, 92 to 182, as in labels.txt of github.com/nightrome/cocostuff.
_STUFF = """
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet,
ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt,
door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog,
food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat,
metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other,
plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea,
shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table,
tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel,
wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
"""


def register_all_coco_stuff_10k(root: str) -> None:
    """Register the two splits; ``root`` is the folder that has ``coco/coco_stuff_10k``."""
    base = os.path.join(root, "coco", "coco_stuff_10k")
    for split in ("train", "test"):
        register_sem_seg(
            f"coco_2017_{split}_stuff_10k_sem_seg",
            os.path.join(base, "images_detectron2", split),
            os.path.join(base, "annotations_detectron2", split),
            _classes,
        )


def _classes() -> dict[str, Any]:
    classes = {c["id"]: c["name"] for c in COCO_CATEGORIES if c["isthing"]}
    classes |= dict(enumerate((name.strip() for name in _STUFF.split(",")), start=92))
    return {
        "stuff_classes": list(classes.values()),
        "stuff_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(classes)},
    }


register_all_coco_stuff_10k(datasets_root())
