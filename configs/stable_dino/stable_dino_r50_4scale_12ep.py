"""Stable-DINO without memory fusion, ResNet-50, four scales, 12 epochs of COCO.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/stable_dino/stable_dino_r50_4scale_12ep.py
"""

from ..common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ..common.data.coco_detr import dataloader
from ..common.detr_adamw import optimizer
from ..common.train import train
from .models.stable_dino_r50 import model

dataloader.train.total_batch_size = 16

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.output_dir = "./output/stable_dino_r50_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
