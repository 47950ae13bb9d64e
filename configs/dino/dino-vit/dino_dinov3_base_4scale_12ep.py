"""DINO on DINOv3 ViT-B, four scales, 12 epochs of COCO.

No AP is published for it, and it has not been trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-vit/dino_dinov3_base_4scale_12ep.py
"""

from ...common.backbones.vit import dinov3_base
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = dinov3_base

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dino_dinov3_base_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
