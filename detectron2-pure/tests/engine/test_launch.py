import importlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.engine import launch

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def targets():
    """The module of functions to launch, importable in new processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield importlib.import_module("launch_targets")
    del sys.modules["launch_targets"]


@pytest.fixture(scope="module")
def two_processes(targets, tmp_path_factory):
    """What two launched processes left behind."""
    folder = tmp_path_factory.mktemp("two_processes")
    launch(targets.report_and_train, 2, args=(str(folder),))
    return folder


def check_reports(folder):
    facts = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert [f["world"] for f in facts] == [2, 2]
    assert [f["local"] for f in facts] == [[0, 2], [1, 2]]
    assert [f["main"] for f in facts] == [True, False]
    assert [f["all_gather"] for f in facts] == [[{"rank": 0}, {"rank": 1}]] * 2
    assert [f["gather"] for f in facts] == [["x", "xx"], []]
    assert [f["gather_to_1"] for f in facts] == [[], [0, 1]]
    assert facts[0]["sum"] == 1.0
    assert [f["start_method"] for f in facts] == [multiprocessing.get_start_method()] * 2
    assert facts[0]["seed"] == facts[1]["seed"]


def test_one_process_is_a_plain_call():
    calls = []
    launch(lambda *args: calls.append(args), 1, args=(1, 2))
    assert calls == [(1, 2)]


def test_ranks_groups_and_gathering(two_processes):
    check_reports(two_processes)


def test_torchrun(targets, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, launch_targets\n"
        "from detectron2.engine import launch\n"
        "if __name__ == '__main__':\n"
        "    launch(launch_targets.report, 1, args=(sys.argv[1],))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*command, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_reports(tmp_path)


@pytest.fixture
def machines_in_environment(monkeypatch):
    """Rank and number of machines, as schedulers of containers set them."""
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_half_a_torchrun_environment(machines_in_environment):
    machines_in_environment.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match="MASTER_ADDR, LOCAL_RANK, LOCAL_WORLD_SIZE is not"):
        launch(print, 1)


def test_environment_that_counts_machines(machines_in_environment, targets):
    # also: the error of a child is shown, and ends the others
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="the cause"):
        launch(targets.fail_in_rank_1, 2)
    machines_in_environment.setenv("WORLD_SIZE", "1")
    test_one_process_is_a_plain_call()


def test_several_machines_need_an_address():
    with pytest.raises(ValueError, match="dist_url"):
        launch(print, 1, num_machines=2)


def test_distributed_training_and_exact_resume(two_processes):
    whole, rest = two_processes / "whole", two_processes / "rest"
    weights = [
        torch.load(folder / f"weights{rank}.pth") for folder in (whole, rest) for rank in range(2)
    ]
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        for name, value in weights[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=0)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (whole, rest)]
    # Each rank's batches and dropout are its own, so the mean loss shows that both were restored.
    assert metrics[0]["total_loss"] == metrics[1]["total_loss"]
