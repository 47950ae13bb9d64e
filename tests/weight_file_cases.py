"""Weight files that have to load, and that have to be refused, by whatever reads them.

detrex and detectron2-pure each have a reader: the full detectron2 has none that is safe, and
detectron2-pure stands alone. Both are tested with this one table.
"""

from __future__ import annotations

import datetime
import os
import pickle
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


class RunsCode:
    """Leaves a file behind where a reader executes what a pickle asks for."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (str(self.trace),)


LOADED: dict[str, dict[str, Any]] = {
    "weights alone": WEIGHTS,
    "a wrapped model": {"model": {f"module.{k}": v for k, v in WEIGHTS.items()}},
    "arguments with paths": {
        "model": WEIGHTS,
        "args": Namespace(output=Path("runs") / "one", lr=1e-4, data=[PureWindowsPath("c:/data")]),
    },
    "numbers and arrays of numpy": {
        "state_dict": WEIGHTS,
        "best": np.float64(0.5),
        "epoch": np.int32(7),
        "mask": np.array([True, False]),
        "names": np.array(["cat", "dog"]),
    },
    "containers": {"model": WEIGHTS, "seen": {1, 2}, "betas": (0.9, 0.999), "none": None},
}

REFUSED: dict[str, Any] = {
    "a default dictionary": defaultdict(list),
    "a date": datetime.date(2020, 1, 1),
    "a slice": slice(1),
}
"""What training scripts may save beside the weights, but what is not known to be harmless."""


def save(path: Path, content: dict[str, Any], how: str) -> Path:
    """Writes a file as torch does now, as it once did, or as a pickle of arrays."""
    path = path.with_suffix(".pkl" if how == "pickle" else ".pth")
    if how == "pickle":
        path.write_bytes(pickle.dumps(_as_arrays(content), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path


def _as_arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy()
    return {k: _as_arrays(v) for k, v in value.items()} if isinstance(value, dict) else value


CASES = [
    (name, how)
    for name in LOADED
    for how in ("zip", "legacy", "pickle")
    if not (how == "pickle" and name == "arguments with paths")  # no model zoo has these
]
