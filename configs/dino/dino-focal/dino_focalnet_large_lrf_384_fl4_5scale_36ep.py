"""DINO on FocalNet-L with four focal levels, five scales, 36 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-focal/dino_focalnet_large_lrf_384_fl4_5scale_36ep.py
"""

from ...common.coco_schedule import lr_multiplier_36ep as lr_multiplier
from .dino_focalnet_large_lrf_384_fl4_5scale_12ep import dataloader, model, optimizer, train

model.backbone.drop_path_rate = 0.4

train.output_dir = "./output/dino_focalnet_large_fl4_5scale_36ep"
train.max_iter = 270000
