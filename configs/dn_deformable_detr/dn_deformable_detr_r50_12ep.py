"""DN-Deformable-DETR, ResNet-50, 12 epochs of COCO.

No AP has been published for it.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dn_deformable_detr/dn_deformable_detr_r50_12ep.py
"""

from ..common.coco_schedule import lr_multiplier_12ep as lr_multiplier
from .dn_deformable_detr_r50_50ep import dataloader, model, optimizer, train

train.output_dir = "./output/dn_deformable_detr_r50_12ep"
train.max_iter = 90000
