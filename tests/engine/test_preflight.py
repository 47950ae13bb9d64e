from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from tiny_run import Run
from torch import nn

from detrex.config import load_config
from detrex.engine.preflight import (
    check_built,
    check_images,
    check_init_checkpoint,
    check_optimizer,
    check_output_dir,
    preflight,
)


@pytest.mark.parametrize("trace", ["last_checkpoint", "metrics.json"])
def test_another_run_in_the_output_directory(tmp_path, trace):
    (tmp_path / trace).write_text("something")
    with pytest.raises(FileExistsError, match=rf"already holds a run \({trace}\).*--resume"):
        check_output_dir(str(tmp_path), resume=False)
    check_output_dir(str(tmp_path), resume=True)


def test_a_run_that_wrote_nothing_is_none(tmp_path):
    (tmp_path / "metrics.json").touch()
    check_output_dir(str(tmp_path), resume=False)


def test_the_output_directory_is_made(tmp_path):
    check_output_dir(str(tmp_path / "a" / "b"), resume=False)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_an_output_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"train\.output_dir=.*cannot be written to: Not a directory"):
        check_output_dir(str(tmp_path / "file" / "run"), resume=False)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.init_checkpoint=.*x\.pth does not exist"):
        check_init_checkpoint(str(tmp_path / "x.pth"))


def test_a_checkpoint_that_is_there(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"")
    check_init_checkpoint(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("path", ["", "detectron2://a/R-50.pkl", "https://a/b.pth"])
def test_checkpoints_that_only_loading_can_check(path):
    check_init_checkpoint(path)


def test_a_trainable_parameter_that_the_optimizer_lacks_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].bias.requires_grad_(False)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"^1 trainable parameters .*: 1\.weight;"):
        check_optimizer(model, optimizer)
    model[1].weight.requires_grad_(False)
    check_optimizer(model, optimizer)


def test_a_parameter_in_two_groups_is_named():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1)
    optimizer.param_groups[1]["params"].append(model.weight)
    with pytest.raises(ValueError, match=r"^1 parameters are in the optimizer several times: wei"):
        check_optimizer(model, optimizer)


MEAN, STD = (127.5, 127.5, 127.5), (58.395, 57.12, 57.375)


def warnings_for(
    caplog, mean=MEAN, order="RGB", formats=("RGB", "RGB"), backbone=True
) -> list[str]:
    """What is said about a model whose backbone expects MEAN, STD and RGB."""
    model = nn.Module()
    model.pixel_mean = torch.tensor(mean).view(-1, 1, 1)
    model.pixel_std = torch.tensor(STD).view(-1, 1, 1)
    expects = {"pixel_mean": MEAN, "pixel_std": STD, "pixel_order": "RGB"} if backbone else {}
    model.backbone = SimpleNamespace(**expects)
    mappers = [{"mapper": {"img_format": name}} for name in formats]
    check_images(model, OmegaConf.create(dict(zip(("train", "test"), mappers, strict=True))))
    return [record.getMessage() for record in caplog.records]


def test_images_as_the_backbone_expects_them(caplog):
    assert warnings_for(caplog) == []
    assert warnings_for(caplog, mean=(127.55, 127.45, 127.5)) == []  # rounded


@pytest.mark.parametrize("mean", [(123.675, 116.28, 103.53), (127.5,)])
def test_pixel_values_that_the_backbone_does_not_expect(caplog, mean):
    (warning,) = warnings_for(caplog, mean=mean)
    values = [round(value, 3) for value in mean]
    assert f"model.pixel_mean is {values}, but" in warning
    assert "expect [127.5, 127.5, 127.5]: model.pixel_mean=null takes that" in warning


def test_an_order_of_channels_that_the_backbone_does_not_expect(caplog):
    (warning,) = warnings_for(caplog, formats=("RGB", "BGR"))
    assert "dataloader.test.mapper.img_format is BGR, but" in warning
    assert "set dataloader.test.mapper.img_format=RGB" in warning


def test_a_backbone_that_does_not_say_what_it_expects(caplog):
    assert warnings_for(caplog, mean=(0.0, 0.0, 0.0), backbone=False) == []
    check_images(nn.Linear(1, 1), OmegaConf.create({"train": {}, "test": {}}))
    assert not caplog.records


def flight(tmp_path, scenes, *arguments: str, resume: bool = False, eval_only: bool = False):
    """Preflight for a tiny run; its config and the messages of its log."""
    run = Run(tmp_path, scenes)
    overrides = [*run.data, f"train.output_dir={tmp_path / 'run'}", "train.device=cpu", *arguments]
    args = Namespace(config_file=str(run.config), resume=resume, eval_only=eval_only)
    preflight(load_config(args.config_file, overrides, eval_only), args)
    return (tmp_path / "run" / "log.txt").read_text()


def test_all_is_checked_before_anything_is_built_and_the_log_has_the_warnings(tmp_path, scenes):
    log = flight(tmp_path, scenes, "+model.num_queries=0")
    assert "Contents of args.config_file" in log
    assert "have more objects than the model's 0 queries" in log


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["train.init_checkpoint=no.pth", "model.num_classes=3"], FileNotFoundError, "no.pth does"),
        (["model.num_classes=3"], ValueError, "set model.num_classes=2."),
    ],
)
def test_the_cheapest_is_checked_first(tmp_path, scenes, arguments, error, message):
    with pytest.raises(error, match=message):
        flight(tmp_path, scenes, *arguments)


def test_initial_weights_are_not_asked_for_by_a_run_that_is_resumed(tmp_path, scenes):
    flight(tmp_path, scenes, "train.init_checkpoint=no.pth", resume=True)
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist"):
        flight(tmp_path, scenes, "train.init_checkpoint=no.pth", resume=True, eval_only=True)


def test_nothing_to_evaluate_is_known_before_a_directory_is_made(tmp_path, scenes):
    with pytest.raises(FileNotFoundError, match="nothing to evaluate"):
        flight(tmp_path, scenes, eval_only=True)
    assert not (tmp_path / "run").exists()


def test_what_is_built_is_checked_in_one_call(caplog):
    model = nn.Linear(2, 2)
    model.pixel_mean = torch.zeros(3)
    model.backbone = SimpleNamespace(pixel_mean=MEAN)
    check_built(model, OmegaConf.create({}))
    assert "model.pixel_mean is" in caplog.text
    with pytest.raises(ValueError, match="are not in the optimizer"):
        check_built(model, OmegaConf.create({}), torch.optim.SGD([model.weight], lr=0.1))
