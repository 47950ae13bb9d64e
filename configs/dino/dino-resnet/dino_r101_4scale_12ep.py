"""DINO, ResNet-101, four scales, 12 epochs of COCO.

No AP is known here for upstream's weights.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-resnet/dino_r101_4scale_12ep.py
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
train.output_dir = "./output/dino_r101_4scale_12ep"
