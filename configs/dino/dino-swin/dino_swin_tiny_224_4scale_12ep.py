"""DINO on Swin-T, four scales, 12 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-swin/dino_swin_tiny_224_4scale_12ep.py
"""

from ...common.backbones.swin import swin_tiny_22kto1k
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = swin_tiny_22kto1k

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dino_swin_tiny_224_4scale_12ep_22kto1k_finetune"
train.max_iter = 90000
train.clip_grad.enabled = True
