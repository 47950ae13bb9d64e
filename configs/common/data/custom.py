"""Your own data set in COCO format: nothing but its paths, here or on the command line.

    dataloader.train.dataset.json_file=train.json dataloader.train.dataset.image_root=images/train
    dataloader.test.dataset.json_file=val.json dataloader.test.dataset.image_root=images/val

Categories may have any ids; `model.num_classes` has to be their number.
"""

from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator

from detrex.data import coco_dataset, register_coco

from .coco_detr import dataloader

dataloader.train.dataset = L(coco_dataset)(json_file="???", image_root="???")
dataloader.test.dataset = L(coco_dataset)(json_file="???", image_root="???")
dataloader.evaluator = L(COCOEvaluator)(
    dataset_name=L(register_coco)(
        json_file="${...test.dataset.json_file}", image_root="${...test.dataset.image_root}"
    ),
)
