"""DINO on ViTDet-B, pretrained by MAE, four scales, 12 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-vitdet/dino_vitdet_base_4scale_12ep.py
"""

from ...common.backbones.vitdet import mae_base, vitdet_base
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = vitdet_base

optimizer.params.lr_factor_func.layer_decay = None  # as published: 0.1 for all layers

dataloader.train.total_batch_size = 16

train.init_checkpoint = mae_base
train.allow_partial_backbone = True  # relative positions and the pyramid are new
train.output_dir = "./output/dino_vitdet_base_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
