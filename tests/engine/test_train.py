"""Whole runs: what they leave behind, that they resume exactly, and what bad input gets."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.engine import hooks
from PIL import Image
from tiny_run import Run

from detrex.config import get_config_file
from detrex.engine import Trainer, report


@pytest.fixture
def run(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Without the pictures at the end: they take longer than everything else."""
    monkeypatch.setattr(report, "draw_curves", lambda *_: None)
    monkeypatch.setattr(report, "draw_contact_sheet", lambda *_: None)
    return Run(tmp_path, scenes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """The output of a run of six iterations; to be left as it is."""
    return Run(tmp_path_factory.mktemp("finished"), scenes)("run")


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch):
    """A Ctrl-C in the middle of an iteration, once."""

    def at(iteration: int) -> None:
        run_step = Trainer.run_step

        def interrupted(self: Trainer) -> None:
            if self.iter == iteration:
                monkeypatch.setattr(Trainer, "run_step", run_step)
                os.kill(os.getpid(), signal.SIGINT)
            run_step(self)

        monkeypatch.setattr(Trainer, "run_step", interrupted)

    return at


def metrics(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def final(output: Path) -> dict:
    return torch.load(output / "model_final.pth", weights_only=True)


def test_a_run_leaves_everything_behind(finished):
    output = finished
    written = {p.name for p in output.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "curves.png", "contact_sheet.png"} <= written
    assert {"model_0000001.pth", "model_0000003.pth", "model_final.pth"} <= written
    assert any(name.startswith("events.out.tfevents") for name in written)
    assert not [name for name in written if name.endswith(".tmp")]
    for name in ("curves.png", "contact_sheet.png"):
        assert min(Image.open(output / name).size) > 100

    records = metrics(output)
    assert [r["iteration"] for r in records if "total_loss" in r] == list(range(6))
    evaluated = [r["iteration"] for r in records if "bbox/AP" in r]
    assert evaluated == [2, 6]
    assert any("ema/bbox/AP50" in r for r in records)

    assert LazyConfig.load(str(output / "config.yaml")).train.max_iter == 6
    log = (output / "log.txt").read_text()
    summary = log[log.index("Everything is in") :]
    assert str(output.resolve()) in summary
    for name in ("metrics.json", "curves.png", "contact_sheet.png", "model_final.pth", "AP50"):
        assert name in summary
    assert "eta:" in log
    assert "even" in log and "odd" in log  # the table of the classes


@pytest.mark.parametrize("options", [[], ["dataloader.train.num_workers=2"]])
def test_an_interrupted_and_resumed_run_equals_one_in_one_go(run, finished, interrupt, options):
    interrupt(2)  # no checkpoint is due there
    with pytest.raises(SystemExit) as error:
        run("parts", *options)
    assert error.value.code == 130
    parts = run.folder / "parts"
    assert (parts / "last_checkpoint").read_text() == "model_0000002.pth"
    assert "--resume continues" in (parts / "log.txt").read_text()
    run("parts", "--resume", *options)

    assert_equal(final(finished), final(parts))
    # (Logged losses are medians over a window, which starts anew.)
    rates = [{r["iteration"]: r["lr"] for r in metrics(o) if "lr" in r} for o in (finished, parts)]
    assert rates[0] == rates[1]


def assert_equal(one, other, path: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}.{i}")
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=lambda m: f"{path}: {m}")
    else:
        assert one == other, path


def test_a_resumed_run_keeps_its_random_seed(run, interrupt):
    interrupt(3)
    with pytest.raises(SystemExit):
        run("run", "train.seed=-1")
    seed = torch.load(run.folder / "run" / "model_0000003.pth", weights_only=True)["data"]["seed"]
    run("run", "train.seed=-1", "--resume")
    assert final(run.folder / "run")["data"]["seed"] == seed


def test_a_finished_run_can_be_resumed_for_longer_and_not_for_the_same(run):
    output = run("run", "train.max_iter=2")
    run("run", "--resume", "train.max_iter=2")
    assert final(output)["iteration"] == 1
    run("run", "--resume", "train.max_iter=4")
    assert final(output)["iteration"] == 3


def test_resuming_nothing_starts_from_the_beginning_and_says_so(run):
    output = run("run", "--resume")
    assert final(output)["iteration"] == 5
    assert "has no checkpoint yet" in (output / "log.txt").read_text()


def test_evaluation_gives_the_result_of_the_training(run, finished):
    weights = finished / "model_final.pth"
    named = run("named", "--eval-only", f"train.init_checkpoint={weights}")
    copy = run.folder / "copy"
    copy.mkdir()
    shutil.copy(weights, copy)
    (copy / "last_checkpoint").write_text(weights.name)
    last = run("copy", "--eval-only")
    assert evaluated(named) == evaluated(last) == evaluated(finished)


def evaluated(output: Path) -> list[str]:
    """The last two rows of results in the log: the weights', and their averages'."""
    lines = (output / "log.txt").read_text().splitlines()
    return [line.split("copypaste: ")[1] for line in lines if "copypaste: " in line][-6:]


def test_evaluation_needs_no_training_data(run, scenes):
    output = run("run", "train.max_iter=2")
    run.data = [option for option in run.data if "test" in option]
    run("run", "--eval-only")
    assert "Evaluated" in (output / "log.txt").read_text()


def test_averaged_weights_take_the_place_of_the_others_where_nothing_is_trained(run):
    options = ("train.max_iter=2", "train.model_ema.use_ema_weights_for_eval_only=true")
    output = run("run", *options)
    assert {"bbox/AP", "ema/bbox/AP"} <= {key for r in metrics(output) for key in r}
    log = (output / "log.txt").read_text()
    run("run", "--eval-only", *options)
    after = (output / "log.txt").read_text().removeprefix(log)
    assert "Evaluation of the averaged weights:" in after
    assert "Evaluation:" not in after


def test_initial_weights_are_loaded_and_reported(run):
    first = run("first", "train.max_iter=2")
    second = run("second", f"train.init_checkpoint={first / 'model_final.pth'}", "optimizer.lr=0.0")
    for name, value in final(first)["model"].items():
        if name != "steps":
            torch.testing.assert_close(final(second)["model"][name], value, rtol=0, atol=0)
    assert "loaded weights" in (second / "log.txt").read_text()


def test_a_trial_run_is_short(run):
    output = run("run", "train.fast_dev_run.enabled=true", "train.max_iter=100000")
    assert final(output)["iteration"] == 19
    assert [r["iteration"] for r in metrics(output) if "bbox/AP" in r] == [9, 20]


def test_mixed_precision_accumulation_and_clipping_from_the_command_line(run):
    output = run(
        "run",
        "train.amp.enabled=true",
        "train.grad_accum_steps=2",
        "train.clip_grad.enabled=true",
        "train.max_iter=3",
    )
    assert all("grad_norm" in r for r in metrics(output) if "total_loss" in r)


def test_a_config_that_comes_with_detrex_is_found_by_its_name(run):
    message = run.error("run", "--config-file", "common/train.py")
    assert "does not describe a training: it has no model, dataloader" in message
    run.config = Path("configs/common/trian.py")
    message = run.error("run")
    assert "'configs/common/trian.py' does not exist" in message
    assert "nearest are common/train.py" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.max_itre=10"], "no key 'train.max_itre'. Did you mean train.max_iter"),
        (["train.device=quantum"], "train.device='quantum' is no device"),
        (["dataloader.train.dataset.json_file=no.json"], "'no.json' does not exist"),
        (["dataloader.test.dataset.image_root=nowhere"], "'nowhere' does not exist"),
        (["model.num_classes=3"], "set model.num_classes=2"),
        (["train.init_checkpoint=no.pth"], "train.init_checkpoint=no.pth does not exist"),
        (["--eval-only"], "nothing to evaluate"),
        (["train.amp.dtype=half"], "train.amp.dtype='half' is not one of"),
        (["train.grad_accum_steps=0"], "train.grad_accum_steps must be at least 1"),
        (["optimizer.lr=-1"], "nvalid learning rate"),
    ],
)
def test_mistakes_get_one_sentence_before_anything_is_trained(run, arguments, message):
    assert message in run.error("run", *arguments)
    assert not (run.folder / "run" / "metrics.json").exists()
    assert not list(run.folder.glob("run/*.pth"))


def test_a_data_set_that_is_not_given_is_asked_for(run):
    run.data = run.data[1:]
    assert "dataloader.train.dataset.json_file=..." in run.error("run")


def test_a_second_run_does_not_mix_with_the_first(run):
    run("run", "train.max_iter=2")
    assert "already holds a run" in run.error("run", "train.max_iter=2")


def test_a_checkpoint_of_another_model_is_refused(run):
    torch.save({"model": {"conv.weight": torch.zeros(1)}}, run.folder / "other.pth")
    message = run.error("run", f"train.init_checkpoint={run.folder / 'other.pth'}")
    assert "other.pth doesn't fit this model" in message


def renamed(run: Run, scenes: Path, names: dict[str, str]) -> None:
    """The data set again, with other names of classes."""
    copy = run.folder / "renamed"
    shutil.copytree(scenes, copy)
    content = json.loads((copy / "scenes.json").read_text())
    for category in content["categories"]:
        category["name"] = names[category["name"]]
    (copy / "scenes.json").write_text(json.dumps(content))
    run.data = [option.replace(str(scenes), str(copy)) for option in run.data]


def test_checkpoints_name_the_classes_and_are_only_used_for_the_same(run, finished, scenes):
    assert final(finished)["classes"] == {"names": ["even", "odd"]}
    shutil.copytree(finished, run.folder / "run")
    renamed(run, scenes, {"even": "odd", "odd": "even"})
    message = "was trained for other classes than the data set's: class 0 is 'even' there and 'odd'"
    assert message in run.error("run", "--resume", "train.max_iter=8")
    weights = f"train.init_checkpoint={finished / 'model_final.pth'}"
    assert message in run.error("other", "--eval-only", weights)


def test_a_model_for_other_classes_is_not_evaluated(run, finished, scenes):
    state = final(finished)
    state["model"] = {n: v[:1] if n.startswith("label") else v for n, v in state["model"].items()}
    torch.save({"model": state["model"]}, run.folder / "one.pth")
    message = run.error("run", "--eval-only", f"train.init_checkpoint={run.folder / 'one.pth'}")
    assert "one.pth lacks 2 of the model's weights: label.weight, label.bias" in message


def test_a_corrupt_checkpoint_is_named(run):
    (run.folder / "broken.pth").write_bytes(b"not a checkpoint")
    message = run.error("run", f"train.init_checkpoint={run.folder / 'broken.pth'}")
    assert "broken.pth" in message


def test_an_image_that_cannot_be_read_is_named(run, scenes):
    copy = run.folder / "scenes"
    shutil.copytree(scenes, copy)
    (copy / "3.png").write_bytes(b"not an image")
    run.data = [option.replace(str(scenes), str(copy)) for option in run.data]
    assert "3.png" in run.error("run")


def test_a_training_that_fails_keeps_its_checkpoints(run, monkeypatch):
    start = hooks.IterationTimer.before_step

    def fail(self) -> None:
        if self.trainer.iter == 4:
            raise RuntimeError("disk on fire")
        start(self)

    monkeypatch.setattr(hooks.IterationTimer, "before_step", fail)
    with pytest.raises(RuntimeError, match="disk on fire"):
        run("run")
    assert (run.folder / "run" / "last_checkpoint").read_text() == "model_0000003.pth"


def test_the_example_config_of_the_documentation_is_there():
    assert Path(get_config_file("common/data/custom.py")).is_file()
