"""DINO on ResNet-50-D, four scales, 12 epochs of COCO.

No AP is published for it, and it has not been trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-timm/dino_resnet50d_4scale_12ep.py
"""

from ...common.backbones.resnet_d import resnet50d
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = resnet50d

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dino_resnet50d_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
