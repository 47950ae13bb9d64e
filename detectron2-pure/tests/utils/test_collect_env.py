import subprocess
import sys

import torch
from detectron2.utils.collect_env import collect_env_info


def test_names_what_matters():
    info = collect_env_info()
    assert torch.__version__ in info
    assert "detectron2" in info and "GPU available" in info and "fvcore" in info
    assert "CXX_FLAGS" not in info


def test_runs_as_a_module():
    command = [sys.executable, "-m", "detectron2.utils.collect_env"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert torch.__version__ in done.stdout
