"""DINO on ViTDet-L, pretrained by MAE, four scales, 50 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-vitdet/dino_vitdet_large_4scale_50ep.py
"""

from ...common.coco_schedule import lr_multiplier_50ep as lr_multiplier
from .dino_vitdet_large_4scale_12ep import dataloader, model, optimizer, train

train.output_dir = "./output/dino_vitdet_large_4scale_50ep"
train.max_iter = 375000
