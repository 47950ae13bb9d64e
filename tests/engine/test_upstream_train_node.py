"""A ``train`` as the public detrex's configs have it, without the keys that are ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_run
import torch
from tiny_run import Run

from detrex.engine import report

REFERENCE = Path(__file__).parents[1] / "config" / "data" / "common_reference.json"
TRAIN = json.loads(REFERENCE.read_text())["configs"]["common/train.py"]["train"]
SHORT = ("train.max_iter=2", "train.seed=1", "train.log_period=1")


@pytest.fixture
def run(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(report, "draw_curves", lambda *_: None)
    monkeypatch.setattr(report, "draw_contact_sheet", lambda *_: None)
    without_train, _, _ = tiny_run.CONFIG.partition("\ntrain = ")
    monkeypatch.setattr(tiny_run, "CONFIG", f"{without_train}\ntrain = dict({TRAIN!r})\n")
    return Run(tmp_path, scenes)


def final(output: Path) -> dict:
    return torch.load(output / "model_final.pth", weights_only=True)


def last_metrics(output: Path) -> dict:
    lines = (output / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


@pytest.fixture
def plain(run) -> Path:
    return run("plain", *SHORT)


def test_it_trains_as_it_is(plain):
    checkpoint = final(plain)
    assert checkpoint["iteration"] == 1
    assert "ema_state" not in checkpoint
    found = last_metrics(plain)
    assert "bbox/AP" in found and "ema/bbox/AP" not in found and "grad_norm" not in found


def test_averages(run):
    output = run("ema", *SHORT, "train.model_ema.enabled=true", "train.model_ema.decay=0.25")
    checkpoint = final(output)
    start = run("start", *SHORT, "optimizer.lr=0", "+optimizer.params.base_lr=0")
    weights = {}
    for name in ("box.weight", "label.bias"):
        weights[name] = checkpoint["ema_state"][name] - checkpoint["model"][name]
        assert weights[name].abs().max() > 0
        away = (final(start)["model"][name] - checkpoint["model"][name]).abs().max()
        assert weights[name].abs().max() < away  # the average lies between start and end
    assert "ema/bbox/AP" in last_metrics(output)


def test_mixed_precision(run, plain):
    weights, amp = (
        final(o)["model"] for o in (plain, run("amp", *SHORT, "train.amp.enabled=true"))
    )
    differences = [(weights[name] - amp[name]).abs().max() for name in ("box.weight", "box.bias")]
    assert 0 < max(differences) < 0.02


def test_clipped_gradients(run):
    found = last_metrics(run("clip", *SHORT, "train.clip_grad.enabled=true"))
    assert found["grad_norm"] > 0  # before it was clipped


def test_a_trial_run(run):
    output = run("trial", "train.fast_dev_run.enabled=true")
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert final(output)["iteration"] == 19
    assert [r["iteration"] for r in lines if "total_loss" in r] == list(range(20))
    assert [r["iteration"] for r in lines if "bbox/AP" in r] == [9, 20]


def test_the_cuda_of_those_configs_is_refused_in_one_sentence_where_there_is_none(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert TRAIN["device"] == "cuda"
    message = run.error("run", *SHORT, "train.device=cuda")
    assert "train.device=auto takes what there is" in message


def test_keys_of_detectron2_and_of_ones_own_do_no_harm(run):
    output = run("run", *SHORT, "+train.cudnn_benchmark=true", "+train.note=hello")
    assert "note: hello" in (output / "config.yaml").read_text()
