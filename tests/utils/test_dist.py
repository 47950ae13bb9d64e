from __future__ import annotations

import builtins
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import detrex.utils
from detrex.utils import get_rank, get_world_size, interpolate, is_dist_avail_and_initialized
from detrex.utils.dist import setup_for_distributed, slurm_init_distributed_mode
from detrex.utils.events import WandbWriter


def test_one_process():
    assert not is_dist_avail_and_initialized()
    assert (get_rank(), get_world_size()) == (0, 1)


def test_only_the_main_process_prints(capsys, monkeypatch):
    monkeypatch.setattr(builtins, "print", builtins.print)
    setup_for_distributed(False)
    print("left out")
    print("said", "anyway", sep="-", force=True)
    setup_for_distributed(True)
    print("main")
    assert capsys.readouterr().out == "said-anyway\nmain\n"


@pytest.fixture
def environment(monkeypatch):
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return monkeypatch


def test_without_slurm_nothing_is_started(environment):
    environment.delenv("SLURM_PROCID", raising=False)
    args = SimpleNamespace()
    slurm_init_distributed_mode(args)
    assert vars(args) == {"rank": 0, "world_size": 1, "gpu": 0, "distributed": False}


def test_several_machines_need_a_meeting_place(environment):
    for name, value in (("PROCID", 3), ("NTASKS", 4), ("LOCALID", 1), ("NNODES", 2)):
        environment.setenv(f"SLURM_{name}", str(value))
    environment.delenv("SLURM_LAUNCH_NODE_IPADDR", raising=False)
    args = SimpleNamespace()
    with pytest.raises(RuntimeError, match=r"on 2 machines, .* set MASTER_ADDR"):
        slurm_init_distributed_mode(args)
    assert vars(args) == {"rank": 3, "world_size": 4, "gpu": 1, "distributed": True}


MEET = """
import os
from types import SimpleNamespace
import torch
from detectron2.utils import comm
from detrex.utils.dist import get_rank, slurm_init_distributed_mode
args = SimpleNamespace(dist_url="auto")
slurm_init_distributed_mode(args)
assert comm.get_local_size() == 2 and comm.get_local_rank() == args.gpu == get_rank()
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
assert [os.environ[name] for name in names] == [str(args.rank), "2", str(args.gpu), "2"]
ranks = comm.all_gather(get_rank())
print(ranks)
torch.distributed.destroy_process_group()
"""


def test_processes_of_slurm_meet(environment):
    """Two processes on one machine, as srun starts them; the main one prints."""
    environment.setenv("SLURM_NTASKS", "2")
    environment.setenv("SLURM_NNODES", "1")
    environment.setenv("SLURM_JOB_ID", "4711")
    started = []
    for rank in ("0", "1"):
        environment.setenv("SLURM_PROCID", rank)
        environment.setenv("SLURM_LOCALID", rank)
        command = [sys.executable, "-c", MEET]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert outputs == ["[0, 1]\n", ""]


def test_maps_of_another_size():
    maps = torch.arange(8.0).view(1, 2, 2, 2)
    doubled = interpolate(maps, scale_factor=2)
    assert torch.equal(doubled[:, :, ::2, ::2], maps)
    assert torch.equal(interpolate(maps, (4, 4), mode="nearest"), doubled)
    for shape in ((0, 2, 2, 2), (1, 0, 2, 2)):
        assert interpolate(torch.zeros(shape), size=(4, 3)).shape == (*shape[:2], 4, 3)
    bilinear = interpolate(maps, (3, 3), None, "bilinear", True)
    torch.testing.assert_close(bilinear[0, 0, 1], torch.tensor([1.0, 1.5, 2.0]))


def test_the_writer_is_there_when_it_is_used():
    """What else the package imports, and that it is light, is in ``test_upstream_names.py``."""
    assert detrex.utils.WandbWriter is WandbWriter
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        detrex.utils.nothing  # noqa: B018
