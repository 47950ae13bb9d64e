import io
import random

import numpy as np
import pytest
import torch
from detectron2.utils.env import (
    get_rng_state,
    preserve_rng_state,
    seed_all_rng,
    set_rng_state,
)


@pytest.fixture(autouse=True)
def leave_generators_alone():
    with preserve_rng_state():
        yield


def draw():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist()


def test_seed_governs_all_generators():
    seed_all_rng(7)
    first = draw()
    seed_all_rng(7)
    assert draw() == first
    seed_all_rng(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_no_seed_is_a_new_one_each_time():
    seed_all_rng(None)
    first = draw()
    seed_all_rng(None)
    assert draw() != first


def test_large_seed():
    seed_all_rng(2**40 + 5)  # numpy takes 32 bits only


def test_state_survives_a_safe_checkpoint():
    random.gauss(0, 1)  # leaves a cached second value, which is state too
    np.random.randn()
    state = get_rng_state()
    expected = draw(), random.gauss(0, 1)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    set_rng_state(torch.load(file, weights_only=True))
    assert (draw(), random.gauss(0, 1)) == expected


def test_preserve_after_an_exception():
    state = get_rng_state()
    expected = draw()
    set_rng_state(state)
    with pytest.raises(ValueError), preserve_rng_state():
        draw()
        raise ValueError
    assert draw() == expected
