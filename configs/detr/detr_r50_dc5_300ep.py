"""DETR-DC5, ResNet-50, 300 epochs of COCO.

Published: 43.3 AP after 500 epochs (2005.12872).

    python tools/train_net.py --num-gpus 8 --config-file configs/detr/detr_r50_dc5_300ep.py
"""

from .detr_r50_300ep import dataloader, lr_multiplier, optimizer, train
from .models.detr_r50_dc5 import model

train.init_checkpoint = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
train.output_dir = "./output/detr_r50_dc5_300ep"
