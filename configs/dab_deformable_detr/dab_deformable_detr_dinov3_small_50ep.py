"""DAB-Deformable-DETR on DINOv3 ViT-S, 50 epochs of COCO.

No AP is published for it, and it has not been trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_deformable_detr/dab_deformable_detr_dinov3_small_50ep.py
"""

from ..common.backbones.vit import dinov3_small
from .dab_deformable_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone = dinov3_small

train.init_checkpoint = ""  # the backbone brings its own weights
train.output_dir = "./output/dab_deformable_detr_dinov3_small_50ep"
