"""DINO, ResNet-50, four scales, 12 epochs of COCO, its whole backbone trained.

Published with upstream's weights: 49.4 to 50.0 AP, with other changes besides.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-resnet/dino_r50_4scale_12ep_no_frozen.py
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.freeze_at = 0

train.output_dir = "./output/dino_r50_4scale_12ep_no_frozen_backbone"
