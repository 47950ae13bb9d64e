"""LVIS v1 (1,203 classes) with DETR's augmentation.

The annotations are looked for as `$DETECTRON2_DATASETS/lvis/lvis_v1_{train,val}.json`, the images,
which are COCO's, under `$DETECTRON2_DATASETS/coco`. `model.num_classes` has to be 1203.
The full detectron2 evaluates with the package `lvis`, detectron2-pure without.
"""

from detectron2.config import LazyCall as L
from detectron2.evaluation import LVISEvaluator

from .coco_detr import dataloader

dataloader.train.dataset.names = "lvis_v1_train"
dataloader.test.dataset.names = "lvis_v1_val"
dataloader.evaluator = L(LVISEvaluator)(dataset_name="${..test.dataset.names}")
