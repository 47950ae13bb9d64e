"""What a timm network offers, found out by running it once without weights or memory.

The network is built on torch's ``meta`` device, where tensors have a shape and a history of
operations but no storage. One forward pass tells the true channels and layout of every level, and
the history of each level tells which parameters it depends on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor

# What makes a network take images of any size, where it does not by itself: window attention
# (Swin) and position tables (ViT) each have a switch of their own.
_SIZE_SWITCHES: tuple[dict[str, bool], ...] = (
    {},
    {"strict_img_size": False},
    {"dynamic_img_size": True},
)

# What networks raise, each in its own way, for arguments that they cannot take.
_BUILD_ERRORS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)


@dataclass(frozen=True)
class Level:
    """One feature map of a network.

    Attributes:
        channels: its width.
        stride: pixels of the image per cell.
        channels_last: whether timm returns it as (B, H, W, C).
        parameters: names of all parameters that it depends on.
        stem: those of ``parameters`` that come before the level's own module, or all of them
            where the level is the stem itself. Meaningful for the first level.
    """

    channels: int
    stride: int
    channels_last: bool
    parameters: frozenset[str]
    stem: frozenset[str]


@dataclass(frozen=True)
class Probe:
    """A network's levels by timm's index, and the arguments that let it take any image size."""

    model_name: str
    levels: Mapping[int, Level]
    num_levels: int
    size_arguments: Mapping[str, bool]

    @property
    def strides(self) -> list[int]:
        return sorted({level.stride for level in self.levels.values()})

    @property
    def is_plain(self) -> bool:
        """Whether all levels have one stride, as a plain transformer's blocks do."""
        return len(self.strides) == 1


def check_model_name(model_name: str) -> None:
    """Raise ValueError with the nearest names if timm has no network of this name."""
    if ":" in model_name:  # hf-hub:... and local-dir:... are looked up when the model is built
        return
    architecture, _, tag = model_name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        hint = f" The nearest are {', '.join(close)}." if close else ""
        raise ValueError(f"timm {timm.__version__} has no network named {model_name!r}.{hint}")
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and model_name not in known:
        raise ValueError(f"timm has no weights {model_name!r}; there are {', '.join(known)}.")


def build(model_name: str, **arguments: Any) -> Any:
    """A timm network that returns features; an argument it does not take is named.

    Returns:
        a module with timm's ``feature_info`` and ``pretrained_cfg``.
    """
    try:
        return timm.create_model(model_name, features_only=True, **arguments)
    except _BUILD_ERRORS as error:
        given = {k: v for k, v in arguments.items() if k not in ("pretrained", "in_chans")}
        raise ValueError(f"{model_name} cannot be built with {given}: {error}") from error


def _parameters_behind(output: Tensor) -> set[int]:
    """Identities of the parameters in the history of ``output``."""
    seen: set[Any] = set()
    found: set[int] = set()
    pending: list[Any] = [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        pending.extend(parent for parent, _ in node.next_functions)
    return found


def _stem_parameters(names: frozenset[str], module: str) -> frozenset[str]:
    """Parameters that are not inside ``module`` (timm writes ``stages.0`` as ``stages_0``)."""
    prefixes = tuple(p + "." for p in (module, module.replace(".", "_", 1), f"model.{module}"))
    outside = frozenset(name for name in names if not name.startswith(prefixes))
    return outside or names


def _run(net: Any, in_channels: int) -> dict[int, Level]:
    """The levels of a network on the meta device, from one pass with an oblong image."""
    indices = net.feature_info.out_indices
    deepest = max(info["reduction"] for info in net.feature_info.info)
    image = torch.empty(1, in_channels, 4 * deepest, 6 * deepest, device="meta")
    channels_last = str(getattr(net, "output_fmt", "NCHW")).upper().endswith("NHWC")
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    levels = {}
    for index, feature in zip(indices, net.eval()(image), strict=True):
        info = net.feature_info.info[index]
        used = frozenset(names[key] for key in _parameters_behind(feature) if key in names)
        levels[index] = Level(
            channels=feature.shape[-1 if channels_last else 1],
            stride=info["reduction"],
            channels_last=channels_last,
            parameters=used,
            stem=_stem_parameters(used, info["module"]),
        )
    return levels


def _build_with_all_levels(
    model_name: str, requested: Iterable[int], arguments: dict[str, Any]
) -> Any:
    """The network with every level timm offers by default, and the requested ones besides."""
    net = build(model_name, **arguments)
    count = len(net.feature_info.info)
    default = [index % count for index in net.feature_info.out_indices]
    wanted = sorted({*default, *_absolute_indices(model_name, requested, count)})
    if wanted == default:
        return net
    try:
        return build(model_name, out_indices=tuple(wanted), **arguments)
    except ValueError as error:
        absent = sorted(set(wanted) - set(default))
        raise ValueError(f"{model_name} offers the levels {default}, not {absent}.") from error


def _absolute_indices(model_name: str, requested: Iterable[int], count: int) -> list[int]:
    indices = []
    for index in requested:
        if not -count <= index < count:
            raise ValueError(
                f"out_indices asks {model_name} for level {index}, but its levels are 0 to "
                f"{count - 1}."
            )
        indices.append(index % count)
    return indices


def probe(
    model_name: str, requested: Iterable[int] = (), in_channels: int = 3, **arguments: Any
) -> Probe:
    """Find out what the network ``model_name`` offers.

    Args:
        model_name: as timm knows it.
        requested: indices of levels; negative ones count from the end.
        in_channels: channels of the images.
        arguments: passed on to timm.

    Raises:
        ValueError: for an unknown name or level, arguments the network does not take, or a
            network that only takes images of one size.
    """
    check_model_name(model_name)
    arguments["in_chans"] = in_channels
    failure: Exception | None = None
    for switch in _SIZE_SWITCHES:
        try:
            with torch.device("meta"):
                net = _build_with_all_levels(model_name, requested, {**arguments, **switch})
        except ValueError:
            if not switch:
                raise
            continue  # the network has no such switch
        try:
            levels = _run(net, in_channels)
        except (AssertionError, RuntimeError, ValueError) as error:
            failure = failure or error
            continue
        return Probe(model_name, levels, len(net.feature_info.info), switch)
    raise ValueError(
        f"{model_name} only takes images of one size ({str(failure) or type(failure).__name__}), "
        "while a detector's images have many; take a convolutional network, a Swin or a plain ViT."
    ) from failure
