"""DINO, ResNet-50, five scales, 12 epochs of COCO.

No AP is known here for upstream's weights.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-resnet/dino_r50_5scale_12ep.py
"""

from ..models.dino_r50_5scale import model
from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train

train.output_dir = "./output/dino_r50_5scale_12ep"
