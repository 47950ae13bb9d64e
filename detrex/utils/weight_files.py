"""Weight files as plain state dicts. Nothing in a file is ever executed."""

from __future__ import annotations

import argparse
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_WRAPPERS = (
    "model",
    "state_dict",
    "model_state",
    "model_state_dict",
    "module",
    "ema",
    "state_dict_ema",
    "blobs",
)
"""Keys that training scripts store the weights under."""


NUMPY_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", np.zeros(0).__reduce__()[0]),
            ("multiarray", "scalar", np.float64(0).__reduce__()[0]),
            ("numeric", "_frombuffer", np.zeros(0).__reduce_ex__(5)[0]),
        )
    },
}
"""What pickled arrays and scalars call; numpy has moved these functions from version to version."""


def _as_bytes(text: str, encoding: str) -> bytes:
    """What ``_codecs.encode`` does in old pickles, which is to write bytes as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for bytes in the encoding {encoding!r}")
    return text.encode(encoding)


def _storage_from_bytes(data: bytes) -> Any:
    """What torch's function of this name does, without trusting the bytes."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class CheckpointError(ValueError):
    """A weight file that can't be used; the message names it and says why."""


class _PlainUnpickler(pickle.Unpickler):
    """Opens model-zoo ``.pkl`` files: containers, numbers and numpy arrays, nothing else."""

    allowed = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _as_bytes,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
        **{("builtins", kind.__name__): kind for kind in (set, frozenset, bytearray, complex)},
        **NUMPY_NAMES,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module.replace("__builtin__", "builtins"), name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _open(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # as torch.save writes, whatever the file's name
        file.seek(0)
        if path.suffix == ".pkl" and not is_zip:
            return _PlainUnpickler(file, encoding="latin1").load()
    with torch.serialization.safe_globals(_harmless()):
        return torch.load(path, map_location="cpu", weights_only=True)


def _harmless() -> list[Any]:
    """What training scripts save beside tensors: arguments with paths, numbers and arrays of
    numpy. Paths become pure ones, which touch no file."""
    arrays = [(f"{module}.{name}", value) for (module, name), value in NUMPY_NAMES.items()]
    number_types = dict.fromkeys(type(np.dtype(code)) for code in "?bhilqBHILQefdSU")
    paths = [
        (f"pathlib{module}.{pure}{system}Path", kind)
        for module in ("", "._local")
        for pure in ("", "Pure")
        for system, kind in (("Posix", PurePosixPath), ("Windows", PureWindowsPath))
    ]
    named = [(value, name) for name, value in (*arrays, *paths)]
    return [argparse.Namespace, *number_types, *named]


class WeightFile(NamedTuple):
    """What a weight file holds."""

    weights: dict[str, Tensor]
    class_names: list[str] | None
    """By class index; None if the file doesn't name its classes."""
    averaged: dict[str, Tensor] | None
    """The moving average of the weights, where our training keeps one; None elsewhere."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights alone, as :func:`read_weight_file` finds them."""
    return read_weight_file(path).weights


def read_weight_file(path: str | Path) -> WeightFile:
    """The content of a ``.pth`` or ``.safetensors`` file, or a ``.pkl`` of detectron2's model zoo.

    Training checkpoints may hold them under ``model``, ``state_dict`` or the like, and under names
    that begin with ``module.``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, holds no weights, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}.")
    try:
        content = _open(path)
    except pickle.UnpicklingError as e:
        raise CheckpointError(
            f"{path} is not read: it is damaged, or holds Python objects other than tensors and "
            f"plain containers, which could run code ({_refused(e)})."
        ) from e
    except Exception as e:  # damaged files make torch raise nearly anything
        raise CheckpointError(
            f"{path} is damaged or no weight file: {str(e).splitlines()[0] or type(e).__name__}"
        ) from e
    class_names, averaged = _class_names(content), _averaged(content)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not tensors by name.")
    weights = {str(k): _as_tensor(v) for k, v in content.items() if _is_array(v)}
    if not weights:
        raise CheckpointError(f"{path} holds no tensors; its keys are {list(content)[:5]}.")
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    return WeightFile(weights, class_names, averaged)


def _class_names(content: Any) -> list[str] | None:
    """The names that our training writes into its checkpoints (``{"classes": {"names": ...}}``)."""
    classes = content.get("classes") if isinstance(content, Mapping) else None
    names = classes.get("names") if isinstance(classes, Mapping) else None
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if named else None


def _averaged(content: Any) -> dict[str, Tensor] | None:
    averaged = content.get("ema_state") if isinstance(content, Mapping) else None
    return dict(averaged) if isinstance(averaged, Mapping) else None


def _refused(error: pickle.UnpicklingError) -> str:
    """What a file asked for, without torch's advice on how to open it all the same."""
    text = str(error)
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    return f"it asks for {asked[1]}" if asked else text.splitlines()[0].split(". ")[0]


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _as_tensor(value: Tensor | np.ndarray) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(value)
