import itertools
import json
import math
from unittest import mock

import pytest
import torch
from detectron2 import engine
from detectron2.engine import SimpleTrainer, TrainerBase, default_writers, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn


class Trainer(TrainerBase):
    """Does nothing in an iteration."""

    def run_step(self):
        pass


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return {"loss": self.fc(x).square().mean()}


def make_trainer(lr=1.0):
    model = Model()
    return SimpleTrainer(
        model, itertools.repeat(torch.ones(2, 3)), torch.optim.SGD(model.parameters(), lr=lr)
    )


@pytest.mark.parametrize("name", hooks.__all__)
def test_hooks_are_exported_by_the_package_too(name):
    assert getattr(engine, name) is getattr(hooks, name)


@pytest.mark.parametrize(
    ("max_iter", "period", "after_train", "expected"),
    [
        (30, 15, True, [15, 30]),
        (31, 15, True, [15, 30, 31]),
        (20, 0, True, [20]),
        (30, 15, False, [15]),
        (20, 0, False, []),
    ],
)
def test_eval_hook_when(max_iter, period, after_train, expected):
    trainer = Trainer()
    at = []
    # iterations that are finished when the evaluation runs
    hook = hooks.EvalHook(
        period,
        lambda: at.append(trainer.iter if trainer._finished else trainer.iter + 1),
        after_train,
    )
    trainer.register_hooks([hook])
    trainer.train(0, max_iter)
    assert at == expected


def test_eval_hook_not_after_a_failure_in_the_last_iteration():
    class Fails(Trainer):
        def run_step(self):
            if self.iter == 2:
                raise RuntimeError

    trainer, function = Fails(), mock.Mock(return_value=None)
    trainer.register_hooks([hooks.EvalHook(0, function)])
    with pytest.raises(RuntimeError):
        trainer.train(0, 3)
    function.assert_not_called()


def test_eval_hook_flattens_and_does_not_smooth():
    trainer = Trainer()
    trainer.register_hooks([hooks.EvalHook(0, lambda: {"bbox": {"AP": 3, "AP-a/b": math.nan}})])
    trainer.train(0, 5)
    latest = trainer.storage.latest()
    assert latest["bbox/AP"] == (3.0, 5) and math.isnan(latest["bbox/AP-a/b"][0])
    assert trainer.storage.smoothing_hints()["bbox/AP"] is False


def test_eval_hook_bad_results():
    trainer = Trainer()
    trainer.register_hooks([hooks.EvalHook(0, lambda: {"bbox": {"AP": "high"}})])
    with pytest.raises(ValueError, match=r"nested dict of float. Got 'bbox/AP: high'"):
        trainer.train(0, 1)
    trainer = Trainer()
    trainer.register_hooks([hooks.EvalHook(0, lambda: 3)])
    with pytest.raises(AssertionError, match=r"must return a dict\. Got 3"):
        trainer.train(0, 1)


def test_eval_hook_leaves_random_numbers_alone():
    trainer = Trainer()
    trainer.register_hooks([hooks.EvalHook(0, lambda: {"x": float(torch.rand(1))})])
    torch.manual_seed(0)
    trainer.train(0, 1)
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.testing.assert_close(after, torch.rand(1), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mode", "values", "saved_at"),
    [
        ("max", [0.3, 0.4, 0.35, 0.5], [10, 20, 40]),
        ("min", [1.0, 0.8, 0.9, 0.9], [10, 20]),
        ("min", [math.nan, 0.8, 0.9, math.inf], [20]),
    ],
)
def test_best_checkpointer(mode, values, saved_at):
    trainer, checkpointer, metrics = Trainer(), mock.Mock(), iter(values)
    trainer.register_hooks(
        [
            hooks.EvalHook(10, lambda: {"AP": next(metrics)}),
            hooks.BestCheckpointer(10, checkpointer, "AP", mode),
        ]
    )
    trainer.train(0, 40)
    calls = [mock.call("model_best", iteration=done - 1) for done in saved_at]
    assert checkpointer.save.call_args_list == calls


def run_best(folder, values, max_iter, resume=False):
    trainer, metrics = make_trainer(), iter(values)
    checkpointer = Checkpointer(trainer.model, str(folder), trainer=trainer)
    best = hooks.BestCheckpointer(2, checkpointer, "AP")
    trainer.register_hooks(
        [
            hooks.PeriodicCheckpointer(checkpointer, 2),
            hooks.EvalHook(2, lambda: {"AP": next(metrics)}),
            best,
        ]
    )
    checkpointer.resume_or_load("", resume=resume)
    trainer.train(trainer.iter + 1 if resume else 0, max_iter)
    return best


def test_best_checkpointer_remembers_after_resume(tmp_path):
    run_best(tmp_path, [0.9, 0.5], 4)
    before = (tmp_path / "model_best.pth").read_bytes()
    resumed = run_best(tmp_path, [0.6], 6, resume=True)
    assert resumed.best_metric == 0.9 and resumed.best_iter == 1
    assert (tmp_path / "model_best.pth").read_bytes() == before
    assert run_best(tmp_path, [0.95], 8, resume=True).best_metric == 0.95
    assert (tmp_path / "model_best.pth").read_bytes() != before


def test_best_checkpointer_with_another_metric_starts_anew(caplog):
    hook = hooks.BestCheckpointer(1, mock.Mock(), "AP")
    hook.load_state_dict({"val_metric": "AP50", "best_metric": 9.0, "best_iter": 1})
    assert hook.best_metric is None and "AP50" in caplog.text


def test_best_checkpointer_without_the_metric(caplog):
    trainer, checkpointer = Trainer(), mock.Mock()
    trainer.register_hooks(
        [
            hooks.EvalHook(0, lambda: {"bbox/AP": 1.0}),
            hooks.BestCheckpointer(1, checkpointer, "AP"),
        ]
    )
    trainer.train(0, 1)
    checkpointer.save.assert_not_called()
    assert "no metric 'AP'" in caplog.text and "bbox/AP" in caplog.text
    with pytest.raises(ValueError, match="'best'"):
        hooks.BestCheckpointer(1, checkpointer, "AP", mode="best")


def test_periodic_checkpointer_files(tmp_path):
    trainer = make_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 4)])
    trainer.train(0, 10)
    names = ["last_checkpoint", "model_0000003.pth", "model_0000007.pth", "model_final.pth"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == saved["trainer"]["iteration"] == 9


def test_periodic_checkpointer_keeps_the_newest(tmp_path):
    trainer = make_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path))
    trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 2, max_to_keep=2)])
    trainer.train(0, 9)
    names = [path.name for path in sorted(tmp_path.glob("*.pth"))]
    assert names == ["model_0000005.pth", "model_0000007.pth", "model_final.pth"]


def test_periodic_checkpointer_counts_those_from_before_a_restart(tmp_path):
    def run(start, stop):
        trainer = make_trainer()
        checkpointer = Checkpointer(trainer.model, str(tmp_path))
        trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 2, max_to_keep=2)])
        trainer.train(start, stop)
        return sorted(path.name for path in tmp_path.glob("model_0*.pth"))

    (tmp_path / "model_0000099.pth").touch()  # of another, longer training
    assert run(0, 5) == ["model_0000001.pth", "model_0000003.pth", "model_0000099.pth"]
    assert run(4, 10) == ["model_0000007.pth", "model_0000009.pth", "model_0000099.pth"]


def test_periodic_checkpointer_with_period_zero(tmp_path):
    trainer = make_trainer()
    hook = hooks.PeriodicCheckpointer(Checkpointer(trainer.model, str(tmp_path)), 0)
    trainer.register_hooks([hook])
    trainer.train(0, 3)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_final.pth"]


def test_lr_scheduler_hook_stores_the_rate_that_was_used():
    trainer = make_trainer(lr=1.0)
    rates = []
    trainer.register_hooks(
        [
            hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0)),
            hooks.CallbackHook(after_step=lambda t: rates.append(t.storage.latest()["lr"])),
        ]
    )
    trainer.train(0, 4)
    assert rates == [(pytest.approx(1 - i / 4), i) for i in range(4)]


@pytest.mark.parametrize("fvcore_scheduler", [True, False])
def test_lr_scheduler_resumes(tmp_path, fvcore_scheduler):
    def run(max_iter, resume):
        trainer = make_trainer(lr=1.0)
        checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
        rates = []
        scheduler = (
            LinearParamScheduler(1.0, 0.0)
            if fvcore_scheduler
            else torch.optim.lr_scheduler.StepLR(trainer.optimizer, 3, gamma=0.5)
        )
        trainer.register_hooks(
            [
                hooks.LRScheduler(scheduler=scheduler),
                hooks.PeriodicCheckpointer(checkpointer, 4),
                hooks.CallbackHook(after_step=lambda t: rates.append(t.storage.latest()["lr"][0])),
            ]
        )
        if resume:
            checkpointer.load(str(tmp_path / "model_0000003.pth"))
        trainer.train(trainer.iter + 1 if resume else 0, max_iter)
        return rates

    whole = run(10, resume=False)
    assert run(10, resume=True) == pytest.approx(whole[4:])


def group(count, lr):
    return {"params": [nn.Parameter(torch.zeros(1)) for _ in range(count)], "lr": lr}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([group(1, 0.1), group(3, 0.2), group(2, 0.3)], 1),
        ([group(1, 0.1), group(1, 0.2), group(1, 0.2)], 1),
    ],
)
def test_lr_of_the_log(groups, expected):
    optimizer = torch.optim.SGD(groups, lr=1.0)
    assert hooks.LRScheduler.get_best_param_group_id(optimizer) == expected


class CountingWriter(EventWriter):
    def __init__(self):
        self.log = []

    def write(self):
        from detectron2.utils.events import get_event_storage

        self.log.append(get_event_storage().iter)

    def close(self):
        self.log.append("closed")


def test_periodic_writer_when():
    trainer, writer = Trainer(), CountingWriter()
    trainer.register_hooks([hooks.PeriodicWriter([writer], period=4)])
    trainer.train(0, 10)
    assert writer.log == [3, 7, 9, 10, "closed"]
    with pytest.raises(TypeError, match="EventWriter"):
        hooks.PeriodicWriter(["metrics.json"])


def test_writers_and_evaluation_together(tmp_path):
    trainer = make_trainer()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.EvalHook(0, lambda: {"metric": 100}),
            hooks.PeriodicWriter(default_writers(str(tmp_path), 50)),
        ]
    )
    trainer.train(0, 50)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [19, 39, 49, 50]
    assert lines[-1] == {"metric": 100.0, "iteration": 50}
    assert set(lines[0]) == {"data_time", "eta_seconds", "iteration", "time", "total_loss"}
    assert len(list(tmp_path.glob("events.*"))) == 1


def test_iteration_timer(monkeypatch, caplog):
    clock = itertools.count()  # each look at the clock is a second
    monkeypatch.setattr("detectron2.engine.hooks.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("fvcore.common.timer.perf_counter", lambda: next(clock))
    caplog.set_level("INFO")
    trainer = Trainer()
    trainer.register_hooks([hooks.IterationTimer(warmup_iter=2)])
    trainer.train(0, 5)
    times = trainer.storage.history("time").values()
    assert [at for _, at in times] == [2, 3, 4]
    assert "Overall training speed: 3 iterations" in caplog.text


def test_iteration_timer_without_timed_iterations(caplog):
    trainer = Trainer()
    trainer.register_hooks([hooks.IterationTimer()])
    trainer.train(0, 2)
    assert "speed" not in caplog.text


def test_profilers_write_files(tmp_path):
    trainer = make_trainer()
    trainer.register_hooks(
        [
            hooks.AutogradProfiler(lambda t: t.iter == 1, str(tmp_path)),
            hooks.TorchProfiler(
                lambda t: t.iter == 2,
                str(tmp_path),
                activities=[torch.profiler.ProfilerActivity.CPU],
            ),
            hooks.TorchMemoryStats(),
        ]
    )
    trainer.train(0, 4)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "profiler-iter1.json", "profiler-iter1.txt"]
    assert "aten::linear" in (tmp_path / "profiler-iter1.txt").read_text()
    assert len(list((tmp_path / "log" / "profiler-iter2").iterdir())) == 1


def test_precise_bn():
    model = nn.Sequential(nn.BatchNorm1d(2))
    data = [torch.tensor([[0.0, 1.0], [2.0, 5.0]]), torch.tensor([[4.0, 1.0], [6.0, 1.0]])]
    trainer = Trainer()
    trainer.register_hooks([hooks.PreciseBN(0, model, data, 2)])
    trainer.train(0, 3)
    torch.testing.assert_close(model[0].running_mean, torch.cat(data).mean(0))


def test_callback_hook():
    calls = []
    trainer = Trainer()
    trainer.register_hooks(
        [
            hooks.CallbackHook(
                before_train=lambda t: calls.append("before_train"),
                after_train=lambda t: calls.append("after_train"),
                before_step=lambda t: calls.append("before_step"),
                after_step=lambda t: calls.append("after_step"),
            )
        ]
    )
    trainer.train(0, 1)
    assert calls == ["before_train", "before_step", "after_step", "after_train"]


@pytest.mark.parametrize("has_hook", [True, False])
def test_all_ranks_gather_when_the_main_process_saves(tmp_path, monkeypatch, has_hook):
    """Scripts register the checkpointer in the main process only; the others gather with it."""
    trainer, at = Trainer(), []
    checkpointer = Checkpointer(Model(), str(tmp_path))
    if has_hook:
        trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 2)])
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", lambda own: [{2}, own])
    monkeypatch.setattr(comm, "gather", lambda state: at.append(trainer.iter))
    trainer.train(0, 5)
    assert at == [1, 3, 4, 5]


def test_nobody_gathers_for_no_checkpoints(monkeypatch):
    trainer = Trainer()
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, own])
    monkeypatch.setattr(comm, "gather", lambda state: pytest.fail("needless"))
    trainer.train(0, 2)
