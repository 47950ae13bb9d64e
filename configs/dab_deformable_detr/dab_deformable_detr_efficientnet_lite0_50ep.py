"""DAB-Deformable-DETR on EfficientNet-Lite0, 50 epochs of COCO.

No AP is published for it, and it has not been trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_deformable_detr/dab_deformable_detr_efficientnet_lite0_50ep.py
"""

from ..common.backbones.light import efficientnet_lite0
from .dab_deformable_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone = efficientnet_lite0

train.init_checkpoint = ""  # the backbone brings its own weights
train.output_dir = "./output/dab_deformable_detr_efficientnet_lite0_50ep"
