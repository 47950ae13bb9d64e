"""Random seeds and the state of every random generator."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
import torch

TORCH_VERSION: tuple[int, int] = tuple(int(x) for x in torch.__version__.split(".")[:2])  # type: ignore[assignment]
"""(major, minor) of the installed torch."""

# Documentation builders set it to import the package without heavy dependencies.
DOC_BUILDING = os.getenv("_DOC_BUILDING", "").lower() in ("1", "true")


def _fresh_seed() -> int:
    """A seed that differs between processes and moments, below 2**32 as numpy asks."""
    entropy = int.from_bytes(os.urandom(4), "big")
    return (os.getpid() + int(datetime.now().strftime("%S%f")) + entropy) % 2**32


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python's, numpy's and torch's (CPU and CUDA) global generators.

    Args:
        seed: a non-negative integer, or None for a seed of its own, which is logged.
    """
    if seed is None:
        seed = _fresh_seed()
        logging.getLogger(__name__).info(f"Using a random seed: {seed}")
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed % 2**32)


def get_rng_state() -> dict[str, Any]:
    """The state of this process's global generators.

    Only numbers, strings, containers and tensors, so that a checkpoint that holds it can be
    read with ``torch.load(weights_only=True)``.
    """
    name, keys, position, has_gauss, cached_gaussian = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached_gaussian": float(cached_gaussian),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Bring the global generators into a state from ``get_rng_state``.

    The CUDA part is skipped where there is no GPU or the state was taken without one.
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy_state = state["numpy"]
    np.random.set_state(
        (
            numpy_state["name"],
            numpy_state["keys"].cpu().numpy().astype(np.uint32),
            numpy_state["position"],
            numpy_state["has_gauss"],
            numpy_state["cached_gaussian"],
        )
    )
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Leave the global generators as they were, whatever happens inside."""
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
