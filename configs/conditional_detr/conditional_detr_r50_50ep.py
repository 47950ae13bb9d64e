"""Conditional-DETR, ResNet-50, 50 epochs of COCO.

Published: 41.0 AP with the authors' weights (2108.06152), converted.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/conditional_detr/conditional_detr_r50_50ep.py
"""

from ..common.coco_schedule import lr_multiplier_50ep as lr_multiplier
from ..common.data.coco_detr import dataloader
from ..common.detr_adamw import optimizer
from ..common.train import train
from .models.conditional_detr_r50 import model

dataloader.train.total_batch_size = 16

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.output_dir = "./output/conditional_detr_r50_50ep"
train.max_iter = 375000
train.clip_grad.enabled = True
