"""torchvision's networks, by name, with or without weights, for images of any channels."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from detectron2.utils import comm
from timm.models import adapt_input_conv
from torch import nn
from torchvision.models import WeightsEnum

from detrex.modeling.backbone.pixels import IMAGENET_RGB, PixelStatistics
from detrex.modeling.backbone.weights import load_trunk
from detrex.utils.pretrained import pretrained_skipped
from detrex.utils.weight_files import read_state_dict

logger = logging.getLogger(__name__)


def check_model_name(model_name: str) -> None:
    """Raise ValueError with the nearest names if torchvision has no such classifier."""
    known = torchvision.models.list_models(module=torchvision.models)
    if model_name not in known:
        close = difflib.get_close_matches(model_name, known, n=5, cutoff=0.5)
        hint = f" The nearest are {', '.join(close)}." if close else ""
        raise ValueError(
            f"torchvision {torchvision.__version__} has no classification network named "
            f"{model_name!r}.{hint}"
        )


def find_weights(model_name: str, weights: WeightsEnum | str | None) -> WeightsEnum | None:
    """A member of the network's enum of weights: itself, by name, or by the enum's name too."""
    if weights is None:
        return None
    known = torchvision.models.get_model_weights(model_name)
    if isinstance(weights, known):
        return weights
    name = str(weights).rpartition(".")[2]
    if name not in known.__members__:
        raise ValueError(
            f"torchvision has no weights {weights!r} for {model_name}; there are "
            f"{', '.join(known.__members__)}."
        )
    return known[name]


def pixel_statistics(weights: WeightsEnum | None) -> PixelStatistics:
    """What the images are that ``weights`` were trained on; ImageNet's without any."""
    if weights is None:
        return IMAGENET_RGB
    transforms = weights.transforms()
    return PixelStatistics.of_unit_range(transforms.mean, transforms.std)


def build(
    model_name: str, weights: WeightsEnum | None, in_channels: int, arguments: dict[str, Any]
) -> nn.Module:
    """The network, its first convolution adapted to images of ``in_channels``.

    Raises:
        ValueError: it does not take the ``arguments``.
        RuntimeError: the weights could not be downloaded.
    """
    try:
        with _first_of_the_machine(weights is not None):
            network = torchvision.models.get_model(model_name, weights=weights, **arguments)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"{model_name} cannot be built with {arguments}: {error}") from error
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        url = None if weights is None else weights.url
        raise RuntimeError(
            f"The weights {weights} could not be had from {url} ({error}). Without a connection, "
            f"fetch the file elsewhere and put it into {folder}, or give it as checkpoint_path=."
        ) from error
    _adapt_first_conv(network, in_channels)
    return network


@contextmanager
def _first_of_the_machine(downloads: bool) -> Iterator[None]:
    """Let one process per machine download; the others find the file when they follow."""
    if downloads and comm.get_local_rank() != 0:
        comm.synchronize()
    try:
        yield
    finally:
        if downloads and comm.get_local_rank() == 0:
            comm.synchronize()


def first_conv(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Name and module of the convolution that sees the image; all networks define it first."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise ValueError(f"{type(network).__name__} has no convolution.")


def _adapt_first_conv(network: nn.Module, in_channels: int) -> None:
    name, conv = first_conv(network)
    if conv.in_channels == in_channels:
        return
    weight = adapt_input_conv(in_channels, conv.weight.detach())
    conv.weight = nn.Parameter(weight)
    conv.in_channels = in_channels
    logger.info("%s: adapted from 3 channels to %d.", name, in_channels)


def asked_for(weights: WeightsEnum | str | None, checkpoint_path: str, model_name: str) -> bool:
    """Whether pretrained weights are asked for and worth having."""
    if weights is None and not checkpoint_path:
        return False
    if pretrained_skipped():
        logger.info("%s starts without pretrained weights: a checkpoint fills it.", model_name)
        return False
    return True


def load_file(extractor: nn.Module, path: Path, in_channels: int) -> None:
    """Load the weights of the whole classifier, which are in a local file, into its trunk."""
    state = read_state_dict(path)
    name = f"{first_conv(extractor)[0]}.weight"
    if name in state and state[name].dim() == 4 and state[name].shape[1] == 3 != in_channels:
        state[name] = adapt_input_conv(in_channels, state[name])
    load_trunk(extractor, state, path)
    logger.info("Loaded %s.", path)
