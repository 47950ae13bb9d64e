"""DINO, ResNet-50, four scales, 12 epochs of COCO, with 300 pairs of denoising queries.

Published with upstream's weights: 49.4 to 50.0 AP, with other changes besides.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-resnet/dino_r50_4scale_12ep_300dn.py
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.transformer.groups.denoising.num_pairs = 300

train.output_dir = "./output/dino_r50_4scale_12ep_300dn"
