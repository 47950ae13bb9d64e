"""Conditional-DETR-DC5, ResNet-101, 50 epochs of COCO.

Published: 45.0 AP (2108.06152).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/conditional_detr/conditional_detr_r101_dc5_50ep.py
"""

from .conditional_detr_r50_dc5_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101

train.init_checkpoint = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
train.output_dir = "./output/conditional_detr_r101_dc5_50ep"
