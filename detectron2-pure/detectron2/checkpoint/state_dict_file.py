"""Safe reading of weight files.

The formats are those found around detection transformers: ``torch.save`` files (zip or legacy),
pickled model-zoo files (``.pkl``) and safetensors. Nothing in a file is ever executed: torch files
go through ``weights_only=True`` and pickles through an unpickler that knows a short list of names.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

WEIGHT_KEYS = ("model", "state_dict", "model_state_dict", "model_state")
"""Names under which training scripts store the weights, in order of preference."""


class UnsafeCheckpointError(ValueError):
    """A file refers to a name outside the allow-list."""


def load_checkpoint_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a weight file of any known format without running code from it.

    Args:
        path: a local file.

    Returns:
        a dict whose ``"model"`` entry maps names to tensors (or arrays, for pickles), next to
        whatever else the file holds (``"optimizer"``, ``"iteration"``, ``"matching_heuristics"``).

    Raises:
        FileNotFoundError: no such file.
        UnsafeCheckpointError: the file needs a class or function that is not plain data.
        ValueError: the file is damaged, or holds no weights.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Checkpoint {path} not found.")
    if path.endswith(".safetensors"):
        return {"model": _read_safetensors(path)}
    if path.endswith(".pkl") and not _is_torch_zip(path):
        return _as_zoo_checkpoint(read_pickle(path), path)
    checkpoint = _as_checkpoint(_read_torch(path), path)
    if path.endswith(".pyth"):  # pycls, whose backbones have names of their own
        checkpoint.update(__author__="pycls", matching_heuristics=True)
    return checkpoint


def load_state_dict_file(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read only the weights of a file, as CPU tensors.

    A prefix ``module.`` that all names share (left by a distributed wrapper) is removed.
    Arguments and errors are those of :func:`load_checkpoint_file`.
    """
    weights = load_checkpoint_file(path)["model"]
    tensors = {name: torch.as_tensor(value) for name, value in weights.items()}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _is_torch_zip(path: str) -> bool:
    with open(path, "rb") as f:
        return f.read(4) == b"PK\x03\x04"


def _as_checkpoint(data: Any, path: str) -> dict[str, Any]:
    """Put the weights under ``"model"``, wherever the file keeps them."""
    if not isinstance(data, Mapping):
        raise ValueError(f"Checkpoint {path} holds a {type(data).__name__}, not a dict of weights.")
    checkpoint = dict(data)
    for key in WEIGHT_KEYS:
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint["model"] = checkpoint.pop(key)
            return checkpoint
    if not data or any(isinstance(v, (torch.Tensor, np.ndarray)) for v in data.values()):
        return {"model": data}
    raise ValueError(
        f"Checkpoint {path} has no weights under any of {', '.join(WEIGHT_KEYS)}; "
        f"it holds {', '.join(map(str, data))}."
    )


def _as_zoo_checkpoint(data: Any, path: str) -> dict[str, Any]:
    """Tell detectron2's own pickles from the Caffe2 ones, which need their names converted."""
    if isinstance(data, Mapping) and "model" in data:
        return dict(data)
    blobs = data.get("blobs", data) if isinstance(data, Mapping) else data
    weights = _as_checkpoint(blobs, path)["model"]
    weights = {name: v for name, v in weights.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs the package safetensors: pip install safetensors."
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _read_torch(path: str) -> Any:
    try:
        with torch.serialization.safe_globals(_torch_allow_list()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise _damaged(path, error) from error


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Plain data, arrays and tensors from a pickle; nothing in it is executed.

    Raises:
        UnsafeCheckpointError: the file needs a class or function that is not plain data.
        ValueError: the file is damaged.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as f:
            # Model-zoo files were written by Python 2, hence latin1 for the bytes of its arrays.
            return _PlainDataUnpickler(f, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except Exception as error:  # damaged pickles raise nearly anything
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> ValueError:
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    reason = re.split(r"\.\s|\n", message)[0] or type(error).__name__
    return ValueError(
        f"Checkpoint {path} ({os.path.getsize(path)} bytes) cannot be read; it may be truncated or "
        f"not a weight file: {reason}"
    )


def _refused(path: str, error: pickle.UnpicklingError) -> ValueError:
    """Tell a name that is not allowed, which torch reports as GLOBAL, from a damaged pickle."""
    name = re.search(r"GLOBAL (\S+)", str(error))
    if name is None:
        return _damaged(path, error)
    return UnsafeCheckpointError(
        f"Checkpoint {path} refers to {name.group(1)}, which is not plain data and could run code; "
        "ask its author for a file of tensors only or, if you trust it, convert it once with "
        "torch.load(..., weights_only=False) and save only its weights."
    )


def _numpy_names() -> dict[str, Any]:
    """The globals that pickled arrays and scalars need, under old and new module names."""
    array = np.empty(0)
    reconstruct = array.__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    names: dict[str, Any] = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = reconstruct
        names[f"{core}.multiarray.scalar"] = scalar
        names[f"{core}.numeric._frombuffer"] = array.__reduce_ex__(5)[0]
    return names


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    """Stand-in for ``_codecs.encode``, by which old pickle protocols write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r} of bytes.")
    return text.encode(encoding)


def _storage_from_bytes(data: bytes) -> Any:
    """Stand-in for torch's function of this name, which would trust the bytes."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _torch_allow_list() -> list[Any]:
    """What original DETR-family checkpoints hold besides tensors."""
    dtypes = [type(np.dtype(code)) for code in "?bhilqBHILQefdSU"]
    paths = [
        (kind, f"pathlib{module}.{pure}{system}Path")
        for module in ("", "._local")
        for pure in ("", "Pure")
        for system, kind in (("Posix", pathlib.PurePosixPath), ("Windows", pathlib.PureWindowsPath))
    ]
    names = [(value, name) for name, value in _numpy_names().items()]
    return [argparse.Namespace, *dict.fromkeys(dtypes), *paths, *names]


class _PlainDataUnpickler(pickle.Unpickler):
    """Unpickles arrays, tensors and plain containers; refuses every other name."""

    _names: ClassVar[dict[str, Any]] = {
        **_numpy_names(),
        "_codecs.encode": _encode,
        "collections.OrderedDict": collections.OrderedDict,
        "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
        "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
        "torch.storage._load_from_bytes": _storage_from_bytes,
        **{f"builtins.{t.__name__}": t for t in (set, frozenset, bytearray, complex)},
    }

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        try:
            return self._names[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"refused GLOBAL {module}.{name}") from None
