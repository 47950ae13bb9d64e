import math

import pytest
import torch
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    MultiStepParamScheduler,
)


def make_optimizer(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1)


def rates_of(optimizer, scheduler, steps):
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


def test_multi_step_with_linear_warmup():
    steps = MultiStepParamScheduler([1, 0.1, 0.01], milestones=[10, 20], num_updates=30)
    optimizer = make_optimizer(5.0, 0.5)
    multiplier = WarmupParamScheduler(steps, 0.001, 5 / 30)
    rates = rates_of(optimizer, LRMultiplier(optimizer, multiplier, 30), 30)
    warmup = [0.001 + (1 - 0.001) * i / 5 for i in range(5)]
    factors = [*warmup, *[1] * 5, *[0.1] * 10, *[0.01] * 11]
    for (a, b), factor in zip(rates, factors, strict=True):
        assert a == pytest.approx(5 * factor) and b == pytest.approx(0.5 * factor)


def test_cosine_with_warmup_joins_the_schedule():
    optimizer = make_optimizer(5.0)
    multiplier = WarmupParamScheduler(CosineParamScheduler(1, 0), 0.001, 5 / 30)
    rates = rates_of(optimizer, LRMultiplier(optimizer, multiplier, 30), 30)
    for i in range(5, 31):
        assert rates[i][0] == pytest.approx(2.5 * (1 + math.cos(math.pi * i / 30)), abs=1e-7)
    end = 0.5 * (1 + math.cos(math.pi * 5 / 30))
    assert rates[3][0] == pytest.approx(5 * (0.001 + (end - 0.001) * 3 / 5))


def test_rescaled_interval_keeps_the_whole_schedule():
    cosine = CosineParamScheduler(1, 0)
    multiplier = WarmupParamScheduler(cosine, 0.001, 0.2, rescale_interval=True)
    for where in (0.2, 0.5, 0.9):
        assert multiplier(where + 1e-6) == pytest.approx(cosine((where - 0.2) / 0.8), abs=1e-4)
    assert multiplier(0.1) == pytest.approx(0.001 + (1 - 0.001) / 2)


def test_constant_warmup():
    multiplier = WarmupParamScheduler(ConstantParamScheduler(2.0), 0.25, 0.5, "constant")
    assert multiplier(0.49) == 0.5 and multiplier(0.51) == 2.0


@pytest.mark.parametrize("length", [-0.1, 1, 500])
def test_warmup_length_is_a_fraction(length):
    with pytest.raises(ValueError, match=f"not {length}"):
        WarmupParamScheduler(CosineParamScheduler(1, 0), 0.1, length)


def test_unknown_warmup_method():
    with pytest.raises(ValueError, match="'exp'"):
        WarmupParamScheduler(CosineParamScheduler(1, 0), 0.1, 0.1, "exp")


def test_step_after_the_last_iteration_is_no_error():
    optimizer = make_optimizer(1.0)
    scheduler = LRMultiplier(optimizer, ConstantParamScheduler(0.5), 3)
    assert rates_of(optimizer, scheduler, 4) == [[0.5]] * 5


def test_state_has_no_schedule_and_resumes():
    optimizer = make_optimizer(1.0)
    scheduler = LRMultiplier(optimizer, CosineParamScheduler(1, 0), 10)
    expected = rates_of(optimizer, scheduler, 10)
    assert scheduler.state_dict() == {"base_lrs": [1.0], "last_epoch": 10}

    optimizer = make_optimizer(1.0)
    scheduler = LRMultiplier(optimizer, CosineParamScheduler(1, 0), 10)
    rates_of(optimizer, scheduler, 4)
    state, optimizer_state = scheduler.state_dict(), optimizer.state_dict()
    optimizer = make_optimizer(1.0)
    scheduler = LRMultiplier(optimizer, CosineParamScheduler(1, 0), 10)
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    assert rates_of(optimizer, scheduler, 6) == expected[4:]


def test_only_param_schedulers():
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(make_optimizer(1.0), lambda where: 1.0, 10)
