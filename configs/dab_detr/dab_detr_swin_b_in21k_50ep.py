"""DAB-DETR on Swin-B, one scale, 50 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_detr/dab_detr_swin_b_in21k_50ep.py
"""

from ..common.backbones.swin import swin_base_22k
from ..common.coco_schedule import lr_multiplier_50ep as lr_multiplier
from ..common.data.coco_detr import dataloader
from ..common.detr_adamw import optimizer
from ..common.train import train
from .models.dab_detr_r50 import model

model.backbone = swin_base_22k
model.backbone.out_strides = [32]
model.neck.in_features = ["p3"]

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dab_detr_swin_b_in21k_50ep"
train.max_iter = 375000
train.clip_grad.enabled = True
