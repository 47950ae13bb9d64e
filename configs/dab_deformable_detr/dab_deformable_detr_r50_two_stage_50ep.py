"""Two-stage DAB-Deformable-DETR, ResNet-50, 50 epochs of COCO.

Published with upstream's weights: 49.7 AP.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py
"""

from .dab_deformable_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.dab_deformable_detr_r50_two_stage import model

train.output_dir = "./output/dab_deformable_detr_r50_two_stage_50ep"
