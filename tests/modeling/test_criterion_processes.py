"""Several processes and accumulated batches: the gradient of one process with all images."""

from __future__ import annotations

from pathlib import Path

import pytest
import sharded_training as sharded
import torch
import torch.multiprocessing as mp
from torch import Tensor


@pytest.fixture(scope="module")
def shared_out(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Weights after a step in each of two processes."""
    folder: Path = tmp_path_factory.mktemp("processes")
    mp.spawn(sharded.in_process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", sharded.CASES)
def test_the_gradient_is_that_of_one_process(shared_out, name):
    kind, counts, _ = sharded.CASES[name]
    alone = sharded.step(kind, [sharded.records(counts)])
    for found in shared_out:
        torch.testing.assert_close(found[name], alone, rtol=1e-5, atol=1e-6)
