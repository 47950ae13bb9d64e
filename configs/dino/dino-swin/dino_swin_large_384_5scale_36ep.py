"""DINO on Swin-L, five scales, 36 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-swin/dino_swin_large_384_5scale_36ep.py
"""

from ...common.coco_schedule import lr_multiplier_36ep as lr_multiplier
from .dino_swin_large_384_5scale_12ep import dataloader, model, optimizer, train

train.output_dir = "./output/dino_swin_large_384_5scale_36ep"
train.max_iter = 270000
