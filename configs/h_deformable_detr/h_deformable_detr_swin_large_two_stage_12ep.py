"""Two-stage H-Deformable-DETR on Swin-L, 12 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/h_deformable_detr/h_deformable_detr_swin_large_two_stage_12ep.py
"""

from ..common.backbones.swin import swin_large_22k
from ..common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ..common.data.coco_detr import dataloader
from ..common.detr_adamw import optimizer
from ..common.train import train
from .models.h_deformable_detr_r50_two_stage import model

model.backbone = swin_large_22k
model.backbone.drop_path_rate = 0.2

dataloader.train.total_batch_size = 16

train.output_dir = "./output/h_deformable_detr_swin_large_two_stage_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
