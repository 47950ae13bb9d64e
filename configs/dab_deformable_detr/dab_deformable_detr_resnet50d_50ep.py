"""DAB-Deformable-DETR on ResNet-50-D, 50 epochs of COCO.

No AP is published for it, and it has not been trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_deformable_detr/dab_deformable_detr_resnet50d_50ep.py
"""

from ..common.backbones.resnet_d import resnet50d
from .dab_deformable_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone = resnet50d

train.init_checkpoint = ""  # the backbone brings its own weights
train.output_dir = "./output/dab_deformable_detr_resnet50d_50ep"
