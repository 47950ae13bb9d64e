"""The quickstart: handwritten digits on photographs, minutes on two CPU cores.

    python tools/quickstart.py

makes the data and starts this.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
)

from ..common.data.custom import dataloader
from ..common.detr_adamw import optimizer
from ..common.train import train
from .models.dino_lite0 import model

model.num_classes = 10

# No flips: a mirrored 2 is no digit.
dataloader.train.mapper.augmentation = [
    L(T.ResizeShortestEdge)(short_edge_length=[128, 144, 160], max_size=160, sample_style="choice")
]
dataloader.train.mapper.augmentation_with_crop = None
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 1
dataloader.test.mapper.augmentation[0].update(short_edge_length=160, max_size=160)
dataloader.test.num_workers = 1

optimizer.lr = 6e-4
optimizer.params.lr_factor_func.backbone = 0.25

lr_multiplier = L(WarmupParamScheduler)(
    # Full speed for half of the training, then down to almost nothing.
    scheduler=L(CompositeParamScheduler)(
        schedulers=[
            L(ConstantParamScheduler)(value=1.0),
            L(LinearParamScheduler)(start_value=1.0, end_value=0.05),
        ],
        lengths=[0.5, 0.5],
        interval_scaling=["rescaled", "rescaled"],
    ),
    warmup_length=0.04,
    warmup_method="linear",
    warmup_factor=0.01,
)

train.output_dir = "./output/quickstart"
train.max_iter = 1100
train.seed = 0
train.clip_grad.enabled = True
train.eval_period = 550
train.checkpointer.period = 550
