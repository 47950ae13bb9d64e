from __future__ import annotations

import copy

import pytest
import torch
from detectron2.structures import Boxes, Instances
from tiny_detector import TinyDetector
from torch import nn

from detrex.engine import Trainer, amp_dtype

ITERATIONS = 3


def batch(*counts: int, seed: int = 0) -> list[dict]:
    """Random images with the given numbers of objects."""
    random = torch.Generator().manual_seed(seed)
    records = []
    for count in counts:
        target = Instances((20, 30))
        corners = torch.rand(count, 2, 2, generator=random).sort(1).values.flatten(1)
        target.gt_boxes = Boxes(corners * torch.tensor([30, 20, 30, 20]))
        target.gt_classes = torch.randint(0, 2, (count,), generator=random)
        image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=random)
        records.append({"image": image, "instances": target, "height": 20, "width": 30})
    return records


def model() -> TinyDetector:
    torch.manual_seed(0)
    return TinyDetector(dropout=0.0)


def trained(batches: list, iterations: int = ITERATIONS, optimizer=torch.optim.SGD, **options):
    net = model()
    Trainer(net, batches, optimizer(net.parameters(), lr=0.1), **options).train(0, iterations)
    return net


def by_hand(batches: list, max_norm: float | None = None) -> TinyDetector:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for records in batches:
        optimizer.zero_grad()
        sum(net(records).values()).backward()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), max_norm)
        optimizer.step()
    return net


def assert_same(one: nn.Module, other: nn.Module, **tolerance) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


BATCHES = [batch(1, 2, seed=s) for s in range(ITERATIONS)]


def test_steps_are_plain_gradient_descent():
    assert_same(trained(BATCHES), by_hand(BATCHES), rtol=0, atol=0)


def test_clipping():
    clipped = trained(BATCHES, clip_grad_params={"max_norm": 0.01, "norm_type": 2})
    assert_same(clipped, by_hand(BATCHES, max_norm=0.01), rtol=0, atol=0)
    with pytest.raises(AssertionError):
        assert_same(clipped, by_hand(BATCHES))


@pytest.mark.parametrize("counts", [(1, 2, 3, 1), (0, 0, 2, 1), (0, 0, 0, 0)])
def test_accumulated_batches_are_one_large_batch(counts):
    large = [batch(*counts, seed=s) for s in range(ITERATIONS)]
    small = [half for records in large for half in (records[:2], records[2:])]
    accumulated = trained(small, grad_accum_steps=2)
    assert_same(accumulated, trained(large), rtol=1e-5, atol=1e-7)


def test_logged_losses_of_accumulated_batches_are_those_of_the_large_batch():
    large = batch(1, 2, 3, 1)
    net = model()
    trainer = Trainer(
        net, [large[:2], large[2:]], torch.optim.SGD(net.parameters(), lr=0.1), grad_accum_steps=2
    )
    expected = {name: float(value.detach()) for name, value in net(large).items()}
    trainer.train(0, 1)
    for name, value in expected.items():
        assert trainer.storage.latest()[name][0] == pytest.approx(value)


def test_bfloat16_runs_the_layers_in_bfloat16_and_keeps_the_weights():
    seen = []

    class Watching(TinyDetector):
        def losses(self, boxes, logits, batch):
            seen.append(boxes.dtype)
            return super().losses(boxes, logits, batch)

    net = Watching()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    Trainer(net, BATCHES, optimizer, amp=True, amp_dtype=torch.bfloat16).train(0, 1)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_float16_scales_the_loss_and_undoes_it():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    trainer = Trainer(net, BATCHES, optimizer, amp=True, amp_dtype=torch.float16)
    # The default is so large that the first steps overflow and are skipped.
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    trainer.train(0, ITERATIONS)
    # Half precision has 11 bits.
    assert_same(net, by_hand(BATCHES), rtol=0.01, atol=2e-3)


def test_the_state_of_the_scaler_is_part_of_a_checkpoint():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    trainer = Trainer(net, BATCHES, optimizer, amp=True, amp_dtype=torch.float16)
    state = copy.deepcopy(trainer.state_dict())
    state["grad_scaler"]["scale"] = 4.0
    trainer.load_state_dict(state)
    assert trainer.grad_scaler.get_scale() == 4.0


def test_a_loss_that_is_not_finite_is_named_and_changes_nothing():
    class Broken(TinyDetector):
        def losses(self, boxes, logits, batch):
            losses = super().losses(boxes, logits, batch)
            return {**losses, "loss_class": losses["loss_class"] * float("nan")}

    net = Broken()
    before = copy.deepcopy(net)
    with pytest.raises(FloatingPointError, match="loss_class"):
        Trainer(net, BATCHES, torch.optim.SGD(net.parameters(), lr=0.1)).train(0, 1)
    assert_same(net, before, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_names_its_parameters_and_changes_nothing():
    net = model()
    net.box.weight.register_hook(lambda grad: grad * float("inf"))
    before = copy.deepcopy(net)
    trainer = Trainer(
        net, BATCHES, torch.optim.SGD(net.parameters(), lr=0.1), clip_grad_params={"max_norm": 1.0}
    )
    with pytest.raises(FloatingPointError, match=r"in 1 parameters: box\.weight"):
        trainer.train(0, 1)
    assert_same(net, before, rtol=0, atol=0)


def test_a_model_left_in_evaluation_mode_is_an_error():
    net = model()
    trainer = Trainer(net, BATCHES, torch.optim.SGD(net.parameters(), lr=0.1))
    net.eval()
    with pytest.raises(RuntimeError, match="evaluation mode"):
        trainer.train(0, 1)


def test_a_model_without_losses_is_an_error():
    class Silent(TinyDetector):
        def losses(self, boxes, logits, batch):
            return {}

    net = Silent()
    with pytest.raises(TypeError, match="non-empty dict of losses, got dict"):
        Trainer(net, BATCHES, torch.optim.SGD(net.parameters(), lr=0.1)).train(0, 1)


def test_random_numbers_are_a_function_of_the_seed_and_the_iteration():
    class Watching(TinyDetector):
        def losses(self, boxes, logits, batch):
            drawn.append(torch.rand(()).item())
            return super().losses(boxes, logits, batch)

    def draw(seed: int, start: int) -> list[float]:
        drawn.clear()
        net = Watching(dropout=0.0)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        Trainer(net, BATCHES, optimizer, seed=lambda: seed).train(start, 3)
        return list(drawn)

    drawn: list[float] = []
    whole = draw(seed=1, start=0)
    assert len(set(whole)) == 3
    assert draw(seed=1, start=1) == whole[1:]
    assert not set(draw(seed=2, start=0)) & set(whole)


@pytest.mark.parametrize(("iterations", "last"), [(3, 2), (0, -1)])
def test_a_finished_training_goes_on_after_its_last_iteration(iterations, last):
    net = model()
    trainer = Trainer(net, BATCHES, torch.optim.SGD(net.parameters(), lr=0.1))
    trainer.train(0, iterations)
    assert trainer.state_dict()["iteration"] == last


def test_at_least_one_batch_per_step():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="grad_accum_steps must be at least 1, got 0"):
        Trainer(net, BATCHES, optimizer, grad_accum_steps=0)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("auto", torch.bfloat16), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_amp_dtype(name, dtype):
    assert amp_dtype(name, torch.device("cpu")) is dtype


def test_an_unknown_amp_dtype_names_the_known_ones():
    with pytest.raises(ValueError, match=r"train\.amp\.dtype='half' is not one of auto, bfloat16"):
        amp_dtype("half", torch.device("cpu"))
