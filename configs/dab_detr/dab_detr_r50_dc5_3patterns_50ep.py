"""DAB-DETR-DC5 with 3 patterns, ResNet-50, 50 epochs of COCO.

Published with upstream's weights: 45.7 AP.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_detr/dab_detr_r50_dc5_3patterns_50ep.py
"""

from .dab_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.dab_detr_r50_dc5 import model

model.transformer.queries.num_patterns = 3

train.init_checkpoint = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
train.output_dir = "./output/dab_detr_r50_dc5_3patterns_50ep"
