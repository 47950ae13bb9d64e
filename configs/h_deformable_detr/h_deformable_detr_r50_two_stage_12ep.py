"""Two-stage H-Deformable-DETR, ResNet-50, 12 epochs of COCO.

Published with upstream's weights: 48.9 to 49.1 AP.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/h_deformable_detr/h_deformable_detr_r50_two_stage_12ep.py
"""

from ..common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ..common.data.coco_detr import dataloader
from ..common.detr_adamw import optimizer
from ..common.train import train
from .models.h_deformable_detr_r50_two_stage import model

dataloader.train.total_batch_size = 16

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.output_dir = "./output/h_deformable_detr_r50_two_stage_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
