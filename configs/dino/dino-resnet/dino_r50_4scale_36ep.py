"""DINO, ResNet-50, four scales, 36 epochs of COCO.

Published (2203.03605): 50.9 AP. The public detrex has no recipe of this length.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-resnet/dino_r50_4scale_36ep.py
"""

from ...common.coco_schedule import lr_multiplier_36ep as lr_multiplier
from .dino_r50_4scale_12ep import dataloader, model, optimizer, train

train.output_dir = "./output/dino_r50_4scale_36ep"
train.max_iter = 270000
