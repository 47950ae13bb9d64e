"""DAB-DETR, ResNet-101, 50 epochs of COCO.

Published: 43.5 AP (2201.12329).

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dab_detr/dab_detr_r101_50ep.py
"""

from .dab_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
train.output_dir = "./output/dab_detr_r101_50ep"
