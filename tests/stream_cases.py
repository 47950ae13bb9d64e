"""Streams of training samples: which batches they make, and the seeds of their samples.

detrex and detectron2-pure each have a stream that can begin anywhere: those of the full detectron2
cannot, and detectron2-pure stands alone. Both are tested with this one table. With groups, detrex
counts the places that seeds belong to in the batches, and detectron2-pure in front of the groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

SEED = 3


class Stream(NamedTuple):
    """A stream of one process, and what it has to give."""

    indices: list[int]
    batch_size: int
    group_of: Callable[[int], int] | None
    start_batch: int
    batches: list[list[int]]


def parity(index: int) -> int:
    return index % 2


STREAMS = {
    "in order": Stream([4, 2, 0, 1], 2, None, 0, [[4, 2], [0, 1]]),
    "an incomplete batch": Stream([4, 2, 0], 2, None, 0, [[4, 2]]),
    "groups": Stream([0, 1, 3, 2, 5, 4, 6, 7], 2, parity, 0, [[1, 3], [0, 2], [4, 6], [5, 7]]),
    "groups from the middle": Stream([0, 1, 3, 2, 5, 4, 6, 7], 2, parity, 2, [[4, 6], [5, 7]]),
    "from the middle": Stream([4, 2, 0, 1, 3], 1, None, 3, [[1], [3]]),
    "behind the end": Stream([4, 2], 2, None, 1, []),
}

PLACES = [  # rank, processes, batches of two left out, places of the samples without groups
    (0, 1, 0, [0, 1, 2, 3]),
    (0, 1, 1, [2, 3, 4, 5]),
    (1, 2, 0, [1, 3, 5, 7]),
    (1, 2, 1, [5, 7]),
]

SEEDS = (  # of the samples at places 0 to 7
    6233904063939786893,
    5712964121383671236,
    5737856171534892084,
    6252797085247196109,
    8142286996972879346,
    4895867234429419378,
    9057504274211220057,
    4782766539338417736,
)


class SeedsSeen:
    """Samples that tell which seed torch's generator has when they are made."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        return torch.initial_seed()
