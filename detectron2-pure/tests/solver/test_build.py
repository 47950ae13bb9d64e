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


@pytest.mark.parametrize("build", [build_optimizer, build_lr_scheduler])
def test_yacs_builders_say_what_to_use(build):
    with pytest.raises(NotImplementedError, match=r"yacs config.*Use .*full detectron2"):
        build(None, None)
