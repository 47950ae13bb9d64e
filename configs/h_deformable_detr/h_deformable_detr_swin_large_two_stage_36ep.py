"""Two-stage H-Deformable-DETR on Swin-L, 36 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file configs/h_deformable_detr/h_deformable_detr_swin_large_two_stage_36ep.py
"""

from ..common.coco_schedule import lr_multiplier_36ep as lr_multiplier
from .h_deformable_detr_swin_large_two_stage_12ep import dataloader, model, optimizer, train

model.backbone.drop_path_rate = 0.5

train.output_dir = "./output/h_deformable_detr_swin_large_two_stage_36ep"
train.max_iter = 270000
