"""What holds without torch.distributed; several processes are in tests/engine/test_launch.py."""

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.env import preserve_rng_state


def test_alone():
    assert (comm.get_rank(), comm.get_world_size()) == (0, 1)
    assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)
    assert comm.is_main_process()
    comm.synchronize()
    data = object()
    assert comm.gather(data) == [data] and comm.all_gather(data) == [data]
    losses = {"a": torch.tensor(1.0)}
    assert comm.reduce_dict(losses) is losses


def test_shared_seed_follows_the_seed():
    with preserve_rng_state():
        np.random.seed(1)
        first = comm.shared_random_seed()
        assert comm.shared_random_seed() != first
        np.random.seed(1)
        assert comm.shared_random_seed() == first


def test_local_group_must_be_made_first():
    with pytest.raises(RuntimeError, match="create_local_process_group"):
        comm.get_local_process_group()
