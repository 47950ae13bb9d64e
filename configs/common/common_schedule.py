"""Makers of learning rate schedules, for use in configs:

    from ..common.common_schedule import multistep_lr_scheduler

    lr_multiplier = multistep_lr_scheduler(milestones=[8000], num_updates=10000, warmup_steps=100)

`num_updates` is the training's length in iterations (`train.max_iter`).
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    ExponentialParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    StepParamScheduler,
    StepWithFixedGammaParamScheduler,
)


def _with_warmup(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor):
    return L(WarmupParamScheduler)(
        scheduler=scheduler,
        warmup_length=warmup_steps / num_updates,
        warmup_method=warmup_method,
        warmup_factor=warmup_factor,
    )


def multistep_lr_scheduler(
    values=(1.0, 0.1),
    warmup_steps=0,
    num_updates=90000,
    milestones=(82500,),
    warmup_method="linear",
    warmup_factor=0.001,
):
    """`values[i]` until iteration `milestones[i]`; without `num_updates` the last one ends it."""
    scheduler = L(MultiStepParamScheduler)(
        values=list(values), milestones=list(milestones), num_updates=num_updates
    )
    length = milestones[-1] if num_updates is None else num_updates
    return _with_warmup(scheduler, warmup_steps, length, warmup_method, warmup_factor)


def step_lr_scheduler(
    values, warmup_steps, num_updates, warmup_method="linear", warmup_factor=0.001
):
    """`values` one after the other, each for an equal part of the training."""
    scheduler = L(StepParamScheduler)(values=values, num_updates=num_updates)
    return _with_warmup(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def step_lr_scheduler_with_fixed_gamma(
    base_value,
    num_decays,
    gamma,
    num_updates,
    warmup_steps,
    warmup_method="linear",
    warmup_factor=0.001,
):
    """`base_value`, multiplied by `gamma` `num_decays` times at equal distances."""
    scheduler = L(StepWithFixedGammaParamScheduler)(
        base_value=base_value, num_decays=num_decays, gamma=gamma, num_updates=num_updates
    )
    return _with_warmup(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def cosine_lr_scheduler(
    start_value, end_value, num_updates, warmup_steps, warmup_method="linear", warmup_factor=0.001
):
    """Half a cosine from `start_value` to `end_value`."""
    scheduler = L(CosineParamScheduler)(start_value=start_value, end_value=end_value)
    return _with_warmup(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def linear_lr_scheduler(
    start_value, end_value, num_updates, warmup_steps, warmup_method="linear", warmup_factor=0.001
):
    """A straight line from `start_value` to `end_value`."""
    scheduler = L(LinearParamScheduler)(start_value=start_value, end_value=end_value)
    return _with_warmup(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def constant_lr_scheduler(
    value, num_updates, warmup_steps, warmup_method="linear", warmup_factor=0.001
):
    """`value` throughout."""
    scheduler = L(ConstantParamScheduler)(value=value)
    return _with_warmup(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def exponential_lr_scheduler(
    start_value, decay, num_updates, warmup_steps, warmup_method="linear", warmup_factor=0.001
):
    """From `start_value` to `start_value * decay`, exponentially."""
    scheduler = L(ExponentialParamScheduler)(start_value=start_value, decay=decay)
    return _with_warmup(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)
