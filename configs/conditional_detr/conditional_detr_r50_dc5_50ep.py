"""Conditional-DETR-DC5, ResNet-50, 50 epochs of COCO.

Published: 43.8 AP (2108.06152).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/conditional_detr/conditional_detr_r50_dc5_50ep.py
"""

from .conditional_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.conditional_detr_r50_dc5 import model

train.init_checkpoint = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
train.output_dir = "./output/conditional_detr_r50_dc5_50ep"
