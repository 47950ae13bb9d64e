"""Learning rate schedules on COCO at 16 images per batch (7,500 iterations are an epoch).

Each is a factor on the base learning rate as a function of the training's progress.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

ITERATIONS_PER_EPOCH = 7500


def default_X_scheduler(num_X):
    """Detectron's `1x`, `2x`, `3x`, ... schedules: `num_X` times 90,000 iterations.

    The last 60,000 and 20,000 iterations run at a tenth and a hundredth of the rate; `1x` and `2x`
    reach them at the same fractions of the training.
    """
    total = num_X * 90000
    milestones = [60000, 80000, 90000] if num_X <= 2 else [total - 60000, total - 20000, total]
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=milestones),
        warmup_length=1000 / total,
        warmup_method="linear",
        warmup_factor=0.001,
    )


def default_coco_scheduler(epochs=50, decay_epochs=40, warmup_epochs=0):
    """`epochs` epochs, the learning rate falling to a tenth after `decay_epochs`."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1],
            milestones=[decay_epochs * ITERATIONS_PER_EPOCH, epochs * ITERATIONS_PER_EPOCH],
        ),
        warmup_length=warmup_epochs / epochs,
        warmup_method="linear",
        warmup_factor=0.001,
    )


lr_multiplier_1x = default_X_scheduler(1)
lr_multiplier_2x = default_X_scheduler(2)
lr_multiplier_3x = default_X_scheduler(3)
lr_multiplier_6x = default_X_scheduler(6)
lr_multiplier_9x = default_X_scheduler(9)

lr_multiplier_12ep = default_coco_scheduler(12, 11)
lr_multiplier_24ep = default_coco_scheduler(24, 20)
lr_multiplier_36ep = default_coco_scheduler(36, 30)
lr_multiplier_50ep = default_coco_scheduler(50, 40)

lr_multiplier_12ep_warmup = default_coco_scheduler(12, 11, 1e-3)
lr_multiplier_50ep_warmup = default_coco_scheduler(50, 40, 1e-3)
