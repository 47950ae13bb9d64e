"""DAB-DETR with 3 patterns, ResNet-50, 50 epochs of COCO.

Published: 42.6 AP (2201.12329).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_detr/dab_detr_r50_3patterns_50ep.py
"""

from .dab_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train
from .models.dab_detr_r50_3patterns import model

train.output_dir = "./output/dab_detr_r50_3patterns_50ep"
