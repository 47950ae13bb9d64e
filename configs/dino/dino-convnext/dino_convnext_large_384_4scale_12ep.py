"""DINO on ConvNeXt-L, four scales, 12 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-convnext/dino_convnext_large_384_4scale_12ep.py
"""

from ...common.backbones.convnext import convnext_large_384
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = convnext_large_384

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dino_convnext_large_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
