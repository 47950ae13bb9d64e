"""DAB-DETR-DC5, ResNet-50, 50 epochs of COCO.

Published with upstream's weights: 44.6 AP.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_detr/dab_detr_r50_dc5_50ep.py
"""

from .dab_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.dab_detr_r50_dc5 import model

model.position_embedding.temperature = 10

train.init_checkpoint = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
train.output_dir = "./output/dab_detr_r50_dc5_50ep"
