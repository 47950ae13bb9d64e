import os
import random
import re
import types

import numpy as np
import pytest
import torch
from detectron2.engine import (
    DefaultPredictor,
    DefaultTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
)
from detectron2.engine.defaults import _highlight, _try_get_key
from detectron2.utils.env import preserve_rng_state
from fvcore.common.config import CfgNode
from omegaconf import OmegaConf
from torch import nn


@pytest.fixture(autouse=True)
def leave_global_state():
    benchmark = torch.backends.cudnn.benchmark
    with preserve_rng_state():
        yield
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a=1 --num-gpus 2", ["a=1"]),
        ("--num-gpus 2 a=1 b=2", ["a=1", "b=2"]),
        ("a=1 --num-gpus 2 b=-1 ~c +d=3", ["a=1", "b=-1", "~c", "+d=3"]),
        ("--num-gpus 2", []),
    ],
)
def test_options_may_stand_anywhere(line, expected):
    args = default_argument_parser().parse_args(line.split())
    assert args.num_gpus == 2 and args.opts == expected
    assert not args.resume and not args.eval_only and args.config_file == ""


def test_unknown_option_is_an_error(capsys):
    with pytest.raises(SystemExit):
        default_argument_parser().parse_args(["a=1", "--num-gpu-s", "2"])
    assert "--num-gpu-s" in capsys.readouterr().err


def test_parser_can_be_extended():
    parser = default_argument_parser(epilog="mine")
    parser.add_argument("--extra", type=int)
    args = parser.parse_args(["x=1", "--extra", "3", "--eval-only"])
    assert args.extra == 3 and args.eval_only and args.opts == ["x=1"]
    assert "mine" in parser.format_help()


def lazy_config(folder, **train):
    return OmegaConf.create({"train": {"output_dir": str(folder), **train}})


def test_setup_writes_config_and_log(tmp_path):
    config_file = tmp_path / "config.py"
    config_file.write_text("train = dict(seed=3)\n")
    args = types.SimpleNamespace(config_file=str(config_file), eval_only=False)
    default_setup(lazy_config(tmp_path / "out", seed=3, cudnn_benchmark=True), args)
    saved = OmegaConf.load(tmp_path / "out" / "config.yaml")
    assert saved.train.seed == 3
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "World size: 1" in log and "train = dict(seed=3)" in log and torch.__version__ in log
    assert torch.backends.cudnn.benchmark is True


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_setup_seeds(tmp_path):
    default_setup(lazy_config(tmp_path, seed=3), {})
    first = draw()
    default_setup(lazy_config(tmp_path, seed=3), {})
    assert draw() == first
    default_setup(lazy_config(tmp_path, seed=-1), {})
    assert draw() != first


def test_setup_takes_args_and_configs_that_lack_everything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Args:  # what notebooks pass
        pass

    default_setup(OmegaConf.create({"model": 1}), Args)
    default_setup(lazy_config(tmp_path / "a"), {})
    assert os.listdir(tmp_path) == ["a"]


def test_evaluation_does_not_touch_cudnn_benchmark(tmp_path):
    torch.backends.cudnn.benchmark = False
    args = types.SimpleNamespace(eval_only=True)
    default_setup(lazy_config(tmp_path, cudnn_benchmark=True), args)
    assert torch.backends.cudnn.benchmark is False


def test_setup_with_cfgnode(tmp_path):
    cfg = CfgNode({"OUTPUT_DIR": str(tmp_path), "SEED": 5, "CUDNN_BENCHMARK": False})
    default_setup(cfg, {})
    assert "SEED: 5" in (tmp_path / "config.yaml").read_text()
    assert not (tmp_path / "config.yaml.tmp").exists()


def test_try_get_key():
    cfg = lazy_config("x", seed=None)
    assert _try_get_key(cfg, "OUTPUT_DIR", "train.output_dir") == "x"
    assert _try_get_key(cfg, "SEED", "train.seed", default=-1) == -1
    assert _try_get_key(CfgNode({"A": {"B": 1}}), "A.B") == 1
    assert _try_get_key({"a": {"b": [1]}}, "a.b") == [1]


def test_highlight_keeps_the_text():
    colored = _highlight("train = 3", "config.py")
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored).strip() == "train = 3"


def test_default_writers_make_the_folder(tmp_path):
    writers = default_writers(str(tmp_path / "new"), 10)
    for writer in writers:
        writer.close()
    # TensorBoard's file comes with the first write
    assert os.listdir(tmp_path / "new") == ["metrics.json"]


def test_ddp_needs_several_processes():
    model = nn.Linear(2, 2)
    assert create_ddp_model(model) is model


@pytest.mark.parametrize("cls", [DefaultTrainer, DefaultPredictor])
def test_what_is_left_out_says_what_to_use(cls):
    with pytest.raises(NotImplementedError, match=f"{cls.__name__} builds .* full detectron2"):
        cls(None)
