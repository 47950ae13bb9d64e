"""Conditional-DETR, ResNet-101, 50 epochs of COCO.

Published: 42.8 AP (2108.06152).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/conditional_detr/conditional_detr_r101_50ep.py
"""

from .conditional_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
train.output_dir = "./output/conditional_detr_r101_50ep"
