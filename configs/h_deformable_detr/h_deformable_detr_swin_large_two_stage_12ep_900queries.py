"""Two-stage H-Deformable-DETR on Swin-L with 900 queries, 12 epochs of COCO.

Hyper-parameters as published with upstream; not trained here.

    python tools/train_net.py --num-gpus 8 \
        --config-file \
            configs/h_deformable_detr/h_deformable_detr_swin_large_two_stage_12ep_900queries.py
"""

from .h_deformable_detr_swin_large_two_stage_12ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.num_queries = 900
model.transformer.queries.num_queries = 2400

train.output_dir = "./output/h_deformable_detr_swin_large_two_stage_12ep_900queries"
