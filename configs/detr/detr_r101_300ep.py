"""DETR, ResNet-101, 300 epochs of COCO.

Published: 43.5 AP after 500 epochs (2005.12872).

    python tools/train_net.py --num-gpus 8 --config-file configs/detr/detr_r101_300ep.py
"""

from .detr_r50_300ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
train.output_dir = "./output/detr_r101_300ep"
