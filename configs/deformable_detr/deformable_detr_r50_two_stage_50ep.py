"""Two-stage Deformable-DETR, ResNet-50, 50 epochs of COCO.

Published: 46.9 AP (2010.04159).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/deformable_detr/deformable_detr_r50_two_stage_50ep.py
"""

from .deformable_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.deformable_detr_r50_two_stage import model

train.output_dir = "./output/deformable_detr_r50_two_stage_50ep"
