"""DN-DETR-DC5, ResNet-50, 50 epochs of COCO.

Published: 46.3 AP (2203.01305).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dn_detr/dn_detr_r50_dc5_50ep.py
"""

from .dn_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.dn_detr_r50_dc5 import model

train.init_checkpoint = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
train.output_dir = "./output/dn_detr_r50_dc5_50ep"
