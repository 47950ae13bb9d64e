"""The command line of training: detectron2's options, and what is wrong with them."""

from __future__ import annotations

import pytest
import torch

from detrex.engine.cli import argument_parser, check_processes


def test_all_options_of_detectron2_are_there():
    default = argument_parser().parse_args([])
    assert (default.config_file, default.resume, default.eval_only) == ("", False, False)
    assert (default.num_gpus, default.num_machines, default.machine_rank) == (1, 1, 0)
    options = ["--config-file", "f.py", "train.a=1", "--resume", "--eval-only", "--num-gpus", "8"]
    options += ["--num-machines", "2", "--machine-rank", "1", "--dist-url", "tcp://h:1", "b=2"]
    args = argument_parser().parse_args(options)
    assert (args.config_file, args.resume, args.eval_only) == ("f.py", True, True)
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (8, 2, 1)
    assert (args.dist_url, args.opts) == ("tcp://h:1", ["train.a=1", "b=2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--num-machines 2", "--dist-url tcp://HOST_OF_MACHINE_0:FREE_PORT"),
        ("--num-machines 2 --machine-rank 2 --dist-url tcp://h:1", "between 0 and 1"),
        ("--num-machines 2 --dist-url h:1", "--dist-url h:1: it is auto or begins with tcp://"),
        ("--num-gpus 9", "--num-gpus 9: this machine has 4"),
    ],
)
def test_options_that_cannot_be_meant(options, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    args = argument_parser().parse_args(options.split())
    with pytest.raises(ValueError, match=message):
        check_processes(args)
    monkeypatch.setenv("LOCAL_RANK", "0")
    check_processes(args)


@pytest.mark.parametrize(
    "options", ["", "--num-gpus 4", "--num-machines 2 --machine-rank 1 --dist-url tcp://h:1"]
)
def test_options_that_fit(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    check_processes(argument_parser().parse_args(options.split()))
