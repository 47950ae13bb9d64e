"""DINO on FocalNet-S, four scales, 12 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-focal/dino_focal_small_lrf_fl3_4scale_12ep.py
"""

from ...common.backbones.focalnet import focalnet_small
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = focalnet_small

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dino_focal_small_lrf_fl3_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
