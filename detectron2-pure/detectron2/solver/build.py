"""Parameter groups for optimizers, and gradient clipping."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from detectron2.solver.lr_scheduler import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn

__all__ = [
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
    "reduce_param_groups",
]

_NORM_TYPES = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups with learning rates and weight decays that differ by kind and by name.

    Only parameters that require a gradient are in it, shared ones once. Parameters with the same
    settings share a group.

    Args:
        model: the model.
        base_lr: learning rate of all; by default the optimizer's. Needed by ``lr_factor_func``
            and by a ``bias_lr_factor`` other than 1.
        weight_decay: weight decay of all; by default the optimizer's.
        weight_decay_norm: weight decay of normalization layers' parameters.
        bias_lr_factor: factor on the learning rate of parameters called "bias".
        weight_decay_bias: weight decay of parameters called "bias".
        lr_factor_func: from a parameter's full name to a factor on its learning rate.
        overrides: settings by a parameter's name within its module, which win over all others,
            as ``{"absolute_pos_embed": {"lr": 0.01, "weight_decay": 0.0}}``.

    Raises:
        ValueError: ``base_lr`` is missing though needed; biases are overridden twice.

    Example:
        >>> torch.optim.SGD(get_default_optimizer_params(model, weight_decay_norm=0),
        ...                 lr=0.01, weight_decay=1e-4, momentum=0.9)
    """
    all_overrides = _with_bias_overrides(
        overrides or {},
        base_lr,
        1.0 if bias_lr_factor is None else bias_lr_factor,
        weight_decay_bias,
    )
    if lr_factor_func is not None and base_lr is None:
        raise ValueError("lr_factor_func requires base_lr.")
    defaults = {"lr": base_lr, "weight_decay": weight_decay}
    groups = []
    for module_name, module, name, parameter in _trainable_parameters(model):
        settings = {key: value for key, value in defaults.items() if value is not None}
        if isinstance(module, _NORM_TYPES) and weight_decay_norm is not None:
            settings["weight_decay"] = weight_decay_norm
        if lr_factor_func is not None:
            full_name = f"{module_name}.{name}" if module_name else name
            settings["lr"] *= lr_factor_func(full_name)
        settings.update(all_overrides.get(name, {}))
        groups.append({"params": [parameter], **settings})
    return reduce_param_groups(groups)


def _with_bias_overrides(
    overrides: Mapping[str, Mapping[str, float]],
    base_lr: float | None,
    bias_lr_factor: float,
    weight_decay_bias: float | None,
) -> dict[str, Mapping[str, float]]:
    bias: dict[str, float] = {}
    if bias_lr_factor != 1.0:
        if base_lr is None:
            raise ValueError("bias_lr_factor requires base_lr.")
        bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    if not bias:
        return dict(overrides)
    if "bias" in overrides:
        raise ValueError(
            "Conflicting overrides for 'bias': give either overrides['bias'], or bias_lr_factor "
            "and weight_decay_bias."
        )
    return {**overrides, "bias": bias}


def _trainable_parameters(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """(module name, module, parameter name, parameter); each parameter once."""
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module_name, module, name, parameter


def _expand_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One group per parameter; of a parameter in several groups, later settings win."""
    by_parameter: dict[Any, dict[str, Any]] = defaultdict(dict)
    for group in params:
        settings = {key: value for key, value in group.items() if key != "params"}
        for parameter in group["params"]:
            by_parameter[parameter].update({"params": [parameter], **settings})
    return list(by_parameter.values())


def reduce_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge groups with equal settings; few large groups make optimizers fast.

    Args:
        params: parameter groups as optimizers take them.
    """
    merged: dict[tuple[tuple[str, Any], ...], list[Any]] = defaultdict(list)
    for group in _expand_param_groups(params):
        settings = tuple(sorted((key, value) for key, value in group.items() if key != "params"))
        merged[settings].extend(group["params"])
    return [{"params": parameters, **dict(settings)} for settings, parameters in merged.items()]


def maybe_add_gradient_clipping(cfg: Any, optimizer: Any) -> Any:
    """Make an optimizer, or a class of them, clip gradients in its ``step``.

    Args:
        cfg: any object with ``SOLVER.CLIP_GRADIENTS.{ENABLED, CLIP_TYPE, CLIP_VALUE, NORM_TYPE}``.
            CLIP_TYPE "value" limits each element, "norm" each parameter's norm.
        optimizer: an optimizer class or object.

    Returns:
        A subclass for a class; the same object, with its class changed, for an object; the
        argument itself if clipping is off.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return optimizer
    limit, norm_type = clip.CLIP_VALUE, clip.NORM_TYPE
    kind = str(clip.CLIP_TYPE).lower().rpartition(".")[2]
    if kind not in ("value", "norm"):
        raise ValueError(f'CLIP_GRADIENTS.CLIP_TYPE is "value" or "norm", not {clip.CLIP_TYPE!r}.')

    def clip_one(parameter: nn.Parameter) -> None:
        if kind == "value":
            nn.utils.clip_grad_value_(parameter, limit)
        else:
            nn.utils.clip_grad_norm_(parameter, limit, norm_type)

    if isinstance(optimizer, type):
        return _clipping_class(optimizer, clip_one)
    optimizer.__class__ = _clipping_class(type(optimizer), clip_one)
    return optimizer


def _clipping_class(base: type[Any], clip_one: Callable[[nn.Parameter], None]) -> type[Any]:
    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                clip_one(parameter)
        return base.step(self, closure)

    return type(base.__name__ + "WithGradientClip", (base,), {"step": step})


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """SGD as the yacs configs of detectron2 describe it.

    Args:
        cfg: any object with ``SOLVER.{BASE_LR, MOMENTUM, NESTEROV, WEIGHT_DECAY, WEIGHT_DECAY_NORM,
            WEIGHT_DECAY_BIAS, BIAS_LR_FACTOR, CLIP_GRADIENTS}``.
        model: the model.
    """
    solver = cfg.SOLVER
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
        parameters,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
    )


def build_lr_scheduler(cfg: Any, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """The schedule that a yacs config of detectron2 describes.

    Args:
        cfg: any object with ``SOLVER.{LR_SCHEDULER_NAME, MAX_ITER, WARMUP_FACTOR, WARMUP_ITERS,
            WARMUP_METHOD, RESCALE_INTERVAL}``. The name is WarmupMultiStepLR (with GAMMA and
            STEPS), WarmupCosineLR (with BASE_LR and BASE_LR_END) or WarmupStepWithFixedGammaLR
            (with GAMMA and NUM_DECAYS).
        optimizer: its learning rates are those after the warm-up.

    Raises:
        ValueError: another name.
    """
    solver = cfg.SOLVER
    schedule = WarmupParamScheduler(
        _schedule(solver),
        solver.WARMUP_FACTOR,
        # In a training shorter than its warm-up, it is all there is.
        min(solver.WARMUP_ITERS / solver.MAX_ITER, math.nextafter(1.0, 0.0)),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)


def _schedule(solver: Any) -> ParamScheduler:
    """The factor on the learning rate, without the warm-up."""
    name, length = solver.LR_SCHEDULER_NAME, solver.MAX_ITER
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= length]
        values = [solver.GAMMA**k for k in range(len(steps) + 1)]
        return MultiStepParamScheduler(values=values, milestones=steps, num_updates=length)
    if name == "WarmupCosineLR":
        return CosineParamScheduler(1, solver.BASE_LR_END / solver.BASE_LR)
    if name == "WarmupStepWithFixedGammaLR":
        return StepWithFixedGammaParamScheduler(1.0, solver.NUM_DECAYS, solver.GAMMA, length)
    raise ValueError(
        "SOLVER.LR_SCHEDULER_NAME is WarmupMultiStepLR, WarmupCosineLR or "
        f"WarmupStepWithFixedGammaLR, not {name!r}."
    )
