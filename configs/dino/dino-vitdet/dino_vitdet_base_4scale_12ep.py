"""DINO on ViT-B by MAE, four scales, 12 epochs of COCO.

Learning rates as published with upstream. Its ViTDet has windows in most blocks, which timm's ViT
has not: here all blocks attend to the whole image. Not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-vitdet/dino_vitdet_base_4scale_12ep.py
"""

from ...common.backbones.vit import vit_base_mae
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = vit_base_mae

optimizer.params.lr_factor_func.layer_decay = None  # as published: 0.1 for all layers

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dino_vitdet_base_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
