"""Random numbers as a function of a seed and of where they are drawn."""

from __future__ import annotations

import random

import numpy as np
import torch

__all__ = ["seed_all", "seed_at", "seed_cpu"]


def seed_at(*place: int) -> int:
    """A seed (63 bits) that is a hash of non-negative integers."""
    words = np.random.SeedSequence(place).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def seed_cpu(seed: int) -> None:
    """Seed Python's, numpy's and torch's CPU generators.

    CUDA is left alone: workers of a data loader must not touch it.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed the generators of the CPU and of all GPUs."""
    seed_cpu(seed)
    torch.cuda.manual_seed_all(seed)
