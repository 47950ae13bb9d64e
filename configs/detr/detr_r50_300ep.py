"""DETR, ResNet-50, 300 epochs of COCO.

Published: 42.0 AP after 500 epochs (2005.12872).

    python tools/train_net.py --num-gpus 8 --config-file configs/detr/detr_r50_300ep.py
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from ..common.data.coco_detr import dataloader
from ..common.detr_adamw import optimizer
from ..common.train import train
from .models.detr_r50 import model

dataloader.train.total_batch_size = 64

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[369600, 554400]),
    warmup_length=0.0,
    warmup_method="linear",
    warmup_factor=0.001,
)

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.output_dir = "./output/detr_r50_300ep"
train.max_iter = 554400
