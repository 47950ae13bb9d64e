"""DAB-DETR-DC5, ResNet-101, 50 epochs of COCO.

Published: 45.8 AP (2201.12329).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_detr/dab_detr_r101_dc5_50ep.py
"""

from .dab_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.dab_detr_r50_dc5 import model

model.backbone.stages.depth = 101

train.init_checkpoint = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
train.output_dir = "./output/dab_detr_r101_dc5_50ep"
