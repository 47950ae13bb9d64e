from types import SimpleNamespace

import pytest
import torch
from detectron2.solver import (
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
)
from detectron2.solver.build import _expand_param_groups, reduce_param_groups
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 4, bias=False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.head.weight
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.pos = nn.Parameter(torch.zeros(3))


def settings_by_name(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: {key: value for key, value in group.items() if key != "params"}
        for group in groups
        for parameter in group["params"]
    }


def test_everything_the_same_is_one_group():
    model = Model()
    (group,) = get_default_optimizer_params(model)
    assert set(group) == {"params"}
    # pos, conv (2), norm (2), head once, nothing frozen
    assert len(group["params"]) == len(set(group["params"])) == 6
    torch.optim.AdamW([group], lr=0.1)


def test_settings_by_kind_and_name():
    model = Model()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        bias_lr_factor=2.0,
        weight_decay_bias=0.5,
        lr_factor_func=lambda name: 10.0 if name.startswith("conv") else 1.0,
        overrides={"pos": {"weight_decay": 0.3}},
    )
    assert settings_by_name(model, groups) == {
        "pos": {"lr": 1.0, "weight_decay": 0.3},
        "conv.weight": {"lr": 10.0, "weight_decay": 0.1},
        "conv.bias": {"lr": 2.0, "weight_decay": 0.5},
        "norm.weight": {"lr": 1.0, "weight_decay": 0.0},
        "norm.bias": {"lr": 2.0, "weight_decay": 0.5},
        "head.weight": {"lr": 1.0, "weight_decay": 0.1},
    }
    assert len(groups) == 5  # pos, conv.weight, both biases, norm.weight, head


def test_names_of_a_top_level_parameter_have_no_dot():
    seen = []
    get_default_optimizer_params(
        Model(), base_lr=1.0, lr_factor_func=lambda name: seen.append(name) or 1.0
    )
    assert seen == ["pos", "conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight"]


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm, nn.InstanceNorm1d]
)
def test_norm_layers(norm):
    layer = norm(4, affine=True) if norm is nn.InstanceNorm1d else norm(4)
    (group,) = get_default_optimizer_params(layer, weight_decay=0.1, weight_decay_norm=0.0)
    assert group["weight_decay"] == 0.0


def test_conflicts():
    with pytest.raises(ValueError, match="bias_lr_factor requires base_lr"):
        get_default_optimizer_params(Model(), bias_lr_factor=2.0)
    with pytest.raises(ValueError, match="lr_factor_func requires base_lr"):
        get_default_optimizer_params(Model(), lr_factor_func=lambda name: 1.0)
    with pytest.raises(ValueError, match="Conflicting overrides for 'bias'"):
        get_default_optimizer_params(
            Model(), weight_decay_bias=0.0, overrides={"bias": {"weight_decay": 0.1}}
        )


def test_expand_and_reduce():
    groups = [{"params": ["a", "b"], "lr": 1}, {"params": ["b", "c"], "lr": 2, "momentum": 3}]
    assert _expand_param_groups(groups) == [
        {"params": ["a"], "lr": 1},
        {"params": ["b"], "lr": 2, "momentum": 3},
        {"params": ["c"], "lr": 2, "momentum": 3},
    ]
    assert reduce_param_groups(groups) == [
        {"params": ["a"], "lr": 1},
        {"params": ["b", "c"], "lr": 2, "momentum": 3},
    ]


def clip_config(kind, value, enabled=True):
    clip = SimpleNamespace(ENABLED=enabled, CLIP_TYPE=kind, CLIP_VALUE=value, NORM_TYPE=2.0)
    return SimpleNamespace(SOLVER=SimpleNamespace(CLIP_GRADIENTS=clip))


@pytest.mark.parametrize(("kind", "expected"), [("value", [1.0, 1.0]), ("norm", [0.6, 0.8])])
@pytest.mark.parametrize("as_class", [True, False])
def test_gradient_clipping(kind, expected, as_class):
    parameter = nn.Parameter(torch.zeros(2))
    cfg = clip_config(kind, 1.0)
    if as_class:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)([parameter], lr=1.0)
    else:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD([parameter], lr=1.0))
    parameter.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(-parameter.detach(), torch.tensor(expected))


def test_clipping_off():
    assert maybe_add_gradient_clipping(clip_config("value", 1, False), torch.optim.SGD) is (
        torch.optim.SGD
    )


def yacs_config(**solver):
    clip = SimpleNamespace(ENABLED=True, CLIP_TYPE="value", CLIP_VALUE=1.0, NORM_TYPE=2.0)
    defaults = {
        "BASE_LR": 5.0,
        "BASE_LR_END": 0.5,
        "MOMENTUM": 0.9,
        "NESTEROV": True,
        "WEIGHT_DECAY": 0.1,
        "WEIGHT_DECAY_NORM": 0.0,
        "WEIGHT_DECAY_BIAS": None,
        "BIAS_LR_FACTOR": 2.0,
        "CLIP_GRADIENTS": clip,
        "MAX_ITER": 100,
        "WARMUP_FACTOR": 0.1,
        "WARMUP_ITERS": 10,
        "WARMUP_METHOD": "linear",
        "RESCALE_INTERVAL": False,
        "GAMMA": 0.1,
        "STEPS": (40, 80, 200),
        "NUM_DECAYS": 4,
    }
    return SimpleNamespace(SOLVER=SimpleNamespace(**(defaults | solver)))


def test_optimizer_of_a_yacs_config():
    model = Model()
    optimizer = build_optimizer(yacs_config(), model)
    assert type(optimizer).__name__ == "SGDWithGradientClip"
    assert optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.9
    settings = {
        name: (group["lr"], group["weight_decay"])
        for name, group in settings_by_name(model, optimizer.param_groups).items()
    }
    assert settings == {
        "conv.weight": (5.0, 0.1),
        "conv.bias": (10.0, 0.1),
        "norm.weight": (5.0, 0.0),
        "norm.bias": (10.0, 0.0),
        "head.weight": (5.0, 0.1),
        "pos": (5.0, 0.1),
    }


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        (
            "WarmupMultiStepLR",
            {0: 0.5, 5: 2.75, 10: 5, 39: 5, 41: 0.5, 79: 0.5, 81: 0.05, 100: 0.05},
        ),
        ("WarmupCosineLR", {0: 0.5, 50: 2.75, 100: 0.5}),
        ("WarmupStepWithFixedGammaLR", {0: 0.5, 19: 5, 21: 0.5, 41: 0.05, 100: 0.0005}),
    ],
)
def test_schedules_of_yacs_configs(name, rates):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=5.0)
    schedule = build_lr_scheduler(yacs_config(LR_SCHEDULER_NAME=name), optimizer)
    found = {}
    for iteration in range(101):
        found[iteration] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    assert {k: found[k] for k in rates} == pytest.approx(rates)


def test_warm_up_longer_than_the_training():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cfg = yacs_config(LR_SCHEDULER_NAME="WarmupCosineLR", WARMUP_ITERS=1000, BASE_LR=1.0)
    schedule = build_lr_scheduler(cfg, optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 + 0.01 * 0.4)


def test_unknown_schedule():
    with pytest.raises(ValueError, match=r"WarmupCosineLR or .*not 'Poly'"):
        build_lr_scheduler(yacs_config(LR_SCHEDULER_NAME="Poly"), None)
