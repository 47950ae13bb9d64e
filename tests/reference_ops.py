"""What the reference implementation measured on stand-alone layers, losses and operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent / "reference" / "ops"


def load(name: str) -> dict[str, Any]:
    """The arrays of ``reference/ops/NAME.npz``: numbers as tensors, text as it is."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return {
            key: value if value.dtype.kind == "U" else torch.from_numpy(value)
            for key, value in arrays.items()
        }
