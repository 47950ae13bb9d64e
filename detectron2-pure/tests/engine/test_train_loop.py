import gc
import itertools
import logging
import math
import re
import weakref

import pytest
import torch
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, TrainerBase, hooks
from torch import nn


class Model(nn.Module):
    """A model with randomness in it, whose losses can be made bad at a call."""

    def __init__(self, bad_at=None, bad=math.nan):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.5)
        self.calls = 0
        self.bad_at, self.bad = bad_at, bad

    def forward(self, x):
        y = self.dropout(self.fc(x))
        losses = {"loss_a": y.square().mean(), "loss_b": y.abs().mean()}
        if self.calls == self.bad_at:
            losses["loss_b"] = losses["loss_b"] * self.bad
        self.calls += 1
        return losses


def batches():
    while True:
        yield torch.rand(2, 3)


def make_trainer(model=None, loader=None, cls=SimpleTrainer, **kwargs):
    model = model or Model()
    loader = batches() if loader is None else loader
    return cls(model, loader, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **kwargs)


class Recorder(HookBase):
    def __init__(self, name, log):
        self.name, self.log = name, log

    def _note(self, what):
        self.log.append((self.name, what, self.trainer.iter, self.trainer.storage.iter))

    def before_train(self):
        self._note("before_train")

    def after_train(self):
        self._note("after_train")

    def before_step(self):
        self._note("before_step")

    def after_backward(self):
        self._note("after_backward")

    def after_step(self):
        self._note("after_step")


def test_order_of_hooks_and_iterations():
    log = []
    trainer = make_trainer()
    trainer.register_hooks([Recorder("a", log), None, Recorder("b", log)])
    trainer.train(3, 5)
    step = ["before_step", "after_backward", "after_step"]
    expected = [("before_train", 3)]
    expected += [(what, at) for at in (3, 4) for what in step]
    expected += [("after_train", 5)]
    assert log == [(name, what, at, at) for what, at in expected for name in ("a", "b")]


def test_after_train_runs_after_an_exception_at_the_failed_iteration(caplog):
    log = []
    trainer = make_trainer(loader=iter([torch.rand(2, 3)]))
    trainer.register_hooks([Recorder("a", log)])
    with pytest.raises(RuntimeError, match="data loader ended at iteration 1, before max_iter 4"):
        trainer.train(0, 4)
    assert log[-1] == ("a", "after_train", 1, 1)
    assert "Exception during training, at iteration 1" in caplog.text


class FailsAfter(HookBase):
    def after_train(self):
        raise OSError("disk full")


def test_failing_after_train_does_not_hide_the_cause_nor_stop_other_hooks(caplog):
    log = []
    trainer = make_trainer(loader=iter([]))
    trainer.register_hooks([FailsAfter(), Recorder("a", log)])
    with pytest.raises(RuntimeError, match="data loader ended"):
        trainer.train(0, 1)
    assert log[-1][:2] == ("a", "after_train")
    assert "disk full" in caplog.text


def test_failing_after_train_is_an_error_of_its_own():
    log = []
    trainer = make_trainer()
    trainer.register_hooks([FailsAfter(), Recorder("a", log)])
    with pytest.raises(OSError, match="disk full"):
        trainer.train(0, 1)
    assert log[-1][:2] == ("a", "after_train")


def test_keyboard_interrupt_runs_after_train():
    log = []

    class Stop(HookBase):
        def after_step(self):
            raise KeyboardInterrupt

    trainer = make_trainer()
    trainer.register_hooks([Recorder("a", log), Stop()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train(0, 3)
    assert log[-1] == ("a", "after_train", 0, 0)


def test_only_hooks_are_registered():
    with pytest.raises(TypeError, match="HookBase"):
        make_trainer().register_hooks([print])


def test_hook_has_a_trainer_once_it_is_registered():
    hook, trainer = HookBase(), make_trainer()
    assert hook.trainer is None
    trainer.register_hooks([hook])
    assert hook.trainer == trainer


def test_hooks_do_not_keep_the_trainer_alive():
    trainer = make_trainer()
    hook = HookBase()
    trainer.register_hooks([hook])
    trainer.train(0, 1)
    reference = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert reference() is None
    finally:
        gc.enable()


def test_run_step_must_be_defined():
    with pytest.raises(NotImplementedError, match="run_step"):
        TrainerBase().train(0, 1)


def test_nothing_to_train_says_so(caplog):
    log = []
    trainer = make_trainer()
    trainer.register_hooks([Recorder("a", log)])
    trainer.train(10, 10)
    assert [what for _, what, *_ in log] == ["before_train", "after_train"]
    (record,) = [r for r in caplog.records if "Nothing to train" in r.getMessage()]
    assert record.levelno == logging.WARNING
    assert "10 is not below max_iter 10" in record.getMessage()
    assert trainer.state_dict()["iteration"] == 9


@pytest.mark.parametrize("asynchronous", [False, True])
def test_metrics(asynchronous):
    torch.manual_seed(0)
    trainer = make_trainer(async_write_metrics=asynchronous)
    seen = []
    trainer.register_hooks(
        [hooks.CallbackHook(after_train=lambda t: seen.append(t.storage.histories()))]
    )
    trainer.train(0, 5)
    histories = seen[0]
    assert set(histories) == {"loss_a", "loss_b", "total_loss", "data_time"}
    values = {name: history.values() for name, history in histories.items()}
    assert [at for _, at in values["total_loss"]] == list(range(5))
    for (total, _), (a, _), (b, _) in zip(
        values["total_loss"], values["loss_a"], values["loss_b"], strict=True
    ):
        assert total == pytest.approx(a + b)


def test_gather_metric_period():
    trainer = make_trainer(gather_metric_period=3)
    seen = []
    trainer.register_hooks(
        [hooks.CallbackHook(after_train=lambda t: seen.append(t.storage.history("total_loss")))]
    )
    trainer.train(0, 7)
    assert [at for _, at in seen[0].values()] == [2, 5]


def test_one_tensor_is_a_loss():
    class OneLoss(Model):
        def forward(self, x):
            return self.fc(x).square().mean()

    trainer = make_trainer(OneLoss())
    before = trainer.model.fc.weight.detach().clone()
    trainer.train(0, 1)
    assert set(trainer.storage.latest()) == {"total_loss", "data_time"}
    assert not torch.equal(before, trainer.model.fc.weight)


@pytest.mark.parametrize("first", [False, True])
def test_step_is_that_of_a_plain_loop(first):
    torch.manual_seed(0)
    model, data = Model().requires_grad_(True), [torch.rand(2, 3) for _ in range(3)]
    model.dropout.p = 0.0
    expected = Model()
    expected.load_state_dict(model.state_dict())
    expected.dropout.p = 0.0
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9)
    for x in data:
        loss = sum(expected(x).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    make_trainer(model, iter(data), zero_grad_before_forward=first).train(0, 3)
    torch.testing.assert_close(model.fc.weight, expected.fc.weight, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_non_finite_loss_names_itself(asynchronous, bad):
    trainer = make_trainer(Model(bad_at=2, bad=bad), async_write_metrics=asynchronous)
    text = f"infinite or NaN at iteration=2!\nNot finite: loss_b = {bad}\n"
    with pytest.raises(FloatingPointError, match=re.escape(text)):
        trainer.train(0, 10)
    # Synchronously before the bad update, else in the next iteration.
    assert torch.isfinite(trainer.model.fc.weight).all() or asynchronous
    assert trainer.iter == 2 + asynchronous


def test_async_error_in_the_last_iteration_surfaces():
    trainer = make_trainer(Model(bad_at=4), async_write_metrics=True)
    with pytest.raises(FloatingPointError, match="iteration=4"):
        trainer.train(0, 5)


def test_async_trainer_trains_twice():
    trainer = make_trainer(async_write_metrics=True)
    trainer.train(0, 2)
    trainer.train(2, 4)
    assert trainer.storage.latest()["total_loss"][1] == 3


def test_loss_that_is_not_one_number():
    class Vector(Model):
        def forward(self, x):
            return {"loss": self.fc(x).mean(), "count": torch.ones(2)}

    trainer = make_trainer(Vector())
    with pytest.raises(ValueError, match=r"one number.*'count': \(2,\)"):
        trainer.write_metrics(Vector()(torch.rand(2, 3)), 0.0, 0)


def test_model_in_eval_mode_is_refused():
    trainer = make_trainer()
    trainer.model.eval()
    with pytest.raises(AssertionError, match="changed to eval mode"):
        trainer.train(0, 1)


def test_data_loader_starts_late_and_can_be_replaced():
    made = []

    class Loader:
        def __init__(self, value):
            self.value = value

        def __iter__(self):
            made.append(self.value)
            return itertools.repeat(torch.full((2, 3), self.value))

    trainer = make_trainer(loader=Loader(1.0))
    assert made == []
    trainer.train(0, 2)
    trainer.reset_data_loader(lambda: Loader(2.0))
    assert made == [1.0]
    trainer.train(2, 4)
    assert made == [1.0, 2.0]


def test_amp_on_cpu_is_bfloat16_without_scaler():
    seen = []

    class Spy(Model):
        def forward(self, x):
            seen.append(self.fc(x).dtype)
            return super().forward(x)

    trainer = make_trainer(Spy(), cls=AMPTrainer, async_write_metrics=True)
    assert trainer.grad_scaler is None and trainer.async_write_metrics
    trainer.train(0, 2)
    assert seen == [torch.bfloat16] * 2
    assert trainer.model.fc.weight.dtype == torch.float32
    assert torch.isfinite(trainer.model.fc.weight).all()
    assert "grad_scaler" not in trainer.state_dict()


def test_amp_float16_scales_and_keeps_the_scale():
    def one_step(scale):
        torch.manual_seed(0)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer = make_trainer(
            cls=AMPTrainer, precision=torch.float16, grad_scaler=scaler, log_grad_scaler=True
        )
        gradients = []

        class Spy(HookBase):
            def after_backward(self):
                gradients.append(self.trainer.model.fc.weight.grad.clone())

        trainer.register_hooks([Spy()])
        trainer.train(0, 1)
        return trainer, gradients[0]

    _, plain_gradient = one_step(1.0)
    plain, _ = one_step(1.0)
    trainer, gradient = one_step(64.0)
    torch.testing.assert_close(gradient, 64 * plain_gradient, rtol=0.01, atol=0.01)
    # unscaled again where it is used
    torch.testing.assert_close(trainer.model.fc.weight, plain.model.fc.weight, rtol=0, atol=1e-3)
    assert trainer.storage.latest()["[metric]grad_scaler"] == (64.0, 0)
    assert make_trainer(cls=AMPTrainer, precision=torch.float16).grad_scaler is not None
    state = trainer.state_dict()
    state["grad_scaler"]["scale"] = 8.0
    other = make_trainer(cls=AMPTrainer, precision=torch.float16)
    other.load_state_dict(state)
    assert other.grad_scaler.get_scale() == 8.0
    # a run in another precision takes the rest of the state
    make_trainer(cls=AMPTrainer).load_state_dict(state)


def test_amp_update_agrees_with_float32_roughly():
    torch.manual_seed(0)
    plain, mixed = Model(), Model()
    mixed.load_state_dict(plain.state_dict())
    plain.dropout.p = mixed.dropout.p = 0.0
    data = [torch.rand(2, 3) for _ in range(3)]
    make_trainer(plain, iter(data)).train(0, 3)
    make_trainer(mixed, iter(data), cls=AMPTrainer).train(0, 3)
    # bfloat16 has 8 bits of mantissa
    torch.testing.assert_close(mixed.fc.weight, plain.fc.weight, rtol=0, atol=2**-7)
