"""DINO on EVA-02-L, four scales, 12 epochs of COCO.

Layer-wise decay of 0.8, as published with upstream. Its EVA-02 has windows in most blocks and
square images of 1024 pixels; here all blocks attend to the whole image. Not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-eva-02/dino_eva02_large_4scale_12ep.py
"""

from ...common.backbones.vit import eva02_large
from ...common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from ...common.data.coco_detr import dataloader
from ...common.detr_adamw import optimizer
from ...common.train import train
from ..models.dino_r50 import model

model.backbone = eva02_large

dataloader.train.total_batch_size = 16

train.output_dir = "./output/dino_eva02_large_4scale_12ep"
train.max_iter = 90000
train.clip_grad.enabled = True
