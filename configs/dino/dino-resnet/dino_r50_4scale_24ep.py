"""DINO, ResNet-50, four scales, 24 epochs of COCO.

Published with upstream's weights: 50.6 AP.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-resnet/dino_r50_4scale_24ep.py
"""

from ...common.coco_schedule import lr_multiplier_24ep as lr_multiplier
from .dino_r50_4scale_12ep import dataloader, model, optimizer, train

train.output_dir = "./output/dino_r50_4scale_24ep"
train.max_iter = 180000
