"""DETR-DC5, ResNet-101, 300 epochs of COCO.

Published: 44.9 AP after 500 epochs (2005.12872).

    python tools/train_net.py --num-gpus 8 --config-file configs/detr/detr_r101_dc5_300ep.py
"""

from .detr_r50_dc5_300ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101

train.init_checkpoint = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
train.output_dir = "./output/detr_r101_dc5_300ep"
