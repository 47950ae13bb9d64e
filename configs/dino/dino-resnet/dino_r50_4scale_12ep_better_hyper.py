"""DINO, ResNet-50, four scales, 12 epochs of COCO: nothing frozen, more denoising, more weight on
classes.

Published with upstream's weights: 49.4 to 50.0 AP.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/dino/dino-resnet/dino_r50_4scale_12ep_better_hyper.py
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.freeze_at = 0
model.transformer.groups.denoising.num_pairs = 300
model.criterion.weight_dict.update(loss_class=2.0, loss_class_dn=1.0)

train.output_dir = "./output/dino_r50_4scale_12ep_better_hyper"
