"""What a timm network offers, found out by running it once without weights or memory.

The network is built on torch's ``meta`` device, where tensors have a shape and a history of
operations but no storage. One forward pass tells the true channels and layout of every level, and
the history of each level tells which parameters it depends on.
"""

from __future__ import annotations

import difflib
import math
import re
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

# What networks raise, each in its own way, for arguments and images that they cannot take.
_BUILD_ERRORS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)
_RUN_ERRORS = (AssertionError, RuntimeError, ValueError)

# Sides of the image that is tried, in cells of the coarsest level: no window or group of cells
# that a network may work with divides both.
_HEIGHT, _WIDTH = 5, 7


@dataclass(frozen=True)
class Level:
    """One feature map of a network.

    Attributes:
        channels: its width.
        stride: pixels of the image per cell.
        channels_last: whether timm returns it as (B, H, W, C).
        parameters: names of all parameters that it depends on.
        stem: those of ``parameters`` that come before the network's stages, or all of them where
            there is nothing before. Meaningful for the first level.
        is_stem: whether the level comes before the stages itself.
    """

    channels: int
    stride: int
    channels_last: bool
    parameters: frozenset[str]
    stem: frozenset[str]
    is_stem: bool


@dataclass(frozen=True)
class Probe:
    """What a network offers.

    Attributes:
        levels: by timm's index, ascending; those requested and more.
        num_levels: how many timm counts.
        arguments: what to build the network with, so that it takes images of any size if it can.
        cell: pixels that the sides of images should be a multiple of; its coarsest stride, or
            more if it works in windows or in pairs of cells.
        whole_cells: whether it fails on other images.
        square_size: the side of the only images that it takes; 0 if it takes others.
    """

    model_name: str
    levels: Mapping[int, Level]
    num_levels: int
    arguments: Mapping[str, Any]
    cell: int
    whole_cells: bool
    square_size: int

    @property
    def strides(self) -> list[int]:
        return sorted({level.stride for level in self.levels.values()})

    @property
    def is_plain(self) -> bool:
        """Whether all levels have one stride, as a plain transformer's blocks do."""
        return len(self.strides) == 1

    @property
    def stem(self) -> frozenset[str]:
        """Names of the parameters that come before all stages."""
        first, *_ = self.levels.values()
        return first.stem.union(*(lv.parameters for lv in self.levels.values() if lv.is_stem))


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


def parameters_behind(*outputs: Tensor) -> set[int]:
    """Identities of the parameters in the history of ``outputs``."""
    seen: set[Any] = set()
    found: set[int] = set()
    pending: list[Any] = [output.grad_fn for output in outputs]
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
    """Parameters outside the container that ``module`` is in, e.g. ``stages`` of ``stages.0``.

    timm's extractors write ``stages.0`` as ``stages_0`` or ``model.stages.0``.
    """
    container = module.partition(".")[0]
    inside = re.compile(rf"(model\.)?{re.escape(container)}(\.|_\d+\.)")
    outside = frozenset(name for name in names if not inside.match(name))
    return outside or names


def _build_levels(
    model_name: str, indices: Iterable[int], strides: Iterable[int], arguments: Mapping[str, Any]
) -> Any:
    """The network on the meta device, with every level timm offers by default, the requested ones
    besides and, of a plain network, the first one."""
    with torch.device("meta"):
        net = build(model_name, **arguments)
        reductions = [level["reduction"] for level in net.feature_info.info]
        count = len(reductions)
        default = {index % count for index in net.feature_info.out_indices}
        wanted = default.union(_absolute_indices(model_name, indices, count))
        if len(set(reductions)) == 1:
            wanted.add(0)
        else:
            deepest = {stride: index for index, stride in enumerate(reductions)}
            wanted.update(deepest[stride] for stride in strides if stride in deepest)
        if wanted == default:
            return net.eval()
        try:
            return build(model_name, out_indices=tuple(sorted(wanted)), **arguments).eval()
        except ValueError as error:
            raise ValueError(
                f"{model_name} offers the levels {sorted(default)}, not {sorted(wanted - default)}."
            ) from error


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


@torch.enable_grad()  # which parameters a level depends on is read from its history
def _run(net: Any, in_channels: int, height: int, width: int) -> dict[int, Level]:
    """The levels of a network on the meta device, from one pass with an image of this size."""
    image = torch.empty(1, in_channels, height, width, device="meta")
    channels_last = str(getattr(net, "output_fmt", "NCHW")).upper().endswith("NHWC")
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    levels = {}
    for index, feature in zip(net.feature_info.out_indices, net(image), strict=True):
        info = net.feature_info.info[index]
        rows, columns = feature.shape[1:3] if channels_last else feature.shape[2:]
        if rows == columns and height != width:
            raise ValueError(f"its maps are {rows} x {columns} whatever the image.")
        if rows > math.ceil(height / info["reduction"]):  # stretched, to make an even number
            raise ValueError(f"{rows} rows of stride {info['reduction']} for {height} pixels.")
        used = frozenset(names[key] for key in parameters_behind(feature) if key in names)
        levels[index] = Level(
            channels=feature.shape[-1 if channels_last else 1],
            stride=info["reduction"],
            channels_last=channels_last,
            parameters=used,
            stem=_stem_parameters(used, info["module"]),
            is_stem=info["reduction"] <= 2 and "." not in info["module"],
        )
    return levels


def _own_side(net: Any) -> int:
    return int(net.pretrained_cfg["input_size"][-1])


def _square_side(model_name: str, img_size: Any, own: int, reason: str) -> int:
    """The side of the only images that a network takes, if the user has chosen one."""
    sides = set(img_size) if isinstance(img_size, list | tuple) else {img_size}
    side = sides.pop()
    if side is not None and not sides:
        return int(side)
    raise ValueError(
        f"{model_name} takes images of one size only ({reason}), while a detector's images have "
        f"many. Choose a square that they fit into, like img_size={own}, and the detector pads "
        "them to it; or take a convolutional network, a Swin or a plain ViT."
    )


def probe(
    model_name: str,
    indices: Iterable[int] = (),
    strides: Iterable[int] = (),
    in_channels: int = 3,
    **arguments: Any,
) -> Probe:
    """Find out what the network ``model_name`` offers.

    Args:
        model_name: as timm knows it.
        indices: of levels; negative ones count from the end.
        strides: of more levels, those of them that there are.
        in_channels: channels of the images.
        arguments: passed on to timm; a network that takes images of one size only takes those of
            its ``img_size``, if that is a square.

    Raises:
        ValueError: for an unknown name or level, arguments the network does not take, or a
            network that only takes images of one size.
    """
    check_model_name(model_name)
    candidate = _Candidate(model_name, tuple(indices), tuple(strides), in_channels, arguments)
    plain = candidate.build({})
    found, reason = _probe_any_size(candidate, plain)
    return found or _probe_own_size(candidate, plain) or _probe_square(candidate, plain, reason)


@dataclass(frozen=True)
class _Candidate:
    """A network as the user asks for it."""

    model_name: str
    indices: tuple[int, ...]
    strides: tuple[int, ...]
    in_channels: int
    arguments: Mapping[str, Any]

    def build(self, switch: Mapping[str, bool]) -> Any:
        """The network on the meta device, with a switch for images of any size."""
        options = {**self.arguments, **switch, "in_chans": self.in_channels}
        return _build_levels(self.model_name, self.indices, self.strides, options)

    def failure(self, net: Any, height: int, width: int) -> str:
        """Why the network cannot take an image of this size; empty if it can."""
        try:
            _run(net, self.in_channels, height, width)
        except _RUN_ERRORS as error:
            return str(error).removesuffix(".") or type(error).__name__
        return ""

    def examine(self, net: Any, arguments: Mapping[str, Any], cell: int) -> Probe:
        """What a network offers that takes images of ``cell`` times any number of pixels."""
        height, width = _HEIGHT * cell, _WIDTH * cell
        levels = _run(net, self.in_channels, height, width)
        whole_cells = bool(self.failure(net, height + 1, width + 1))
        count = len(net.feature_info.info)
        return Probe(self.model_name, levels, count, arguments, cell, whole_cells, 0)


def _probe_any_size(candidate: _Candidate, plain: Any) -> tuple[Probe | None, str]:
    """What the network offers, by itself or with a switch, for images of any size; or why not."""
    reason = ""
    for switch in _SIZE_SWITCHES:
        try:
            net = candidate.build(switch) if switch else plain
        except ValueError:
            continue  # the network has no such switch
        coarsest = max(level["reduction"] for level in net.feature_info.info)
        for cell in (coarsest, 2 * coarsest):
            failure = candidate.failure(net, _HEIGHT * cell, _WIDTH * cell)
            if not failure:
                return candidate.examine(net, {**candidate.arguments, **switch}, cell), ""
            reason = reason or failure
    return None, reason


def _probe_own_size(candidate: _Candidate, plain: Any) -> Probe | None:
    """What a network offers that works in windows of a fixed size: cells of its own image size.

    Raises:
        ValueError: the network can only run with values, so that nothing can be known before.
    """
    own = _own_side(plain)
    failure = candidate.failure(plain, _HEIGHT * own, _WIDTH * own)
    if not failure:
        return candidate.examine(plain, candidate.arguments, own)
    if "meta tensors" in failure:
        raise ValueError(
            f"{candidate.model_name} cannot be a backbone here: what it does depends on values of "
            f"tensors ({failure}), so its levels cannot be known before it runs; take another "
            "network."
        )
    return None


def _probe_square(candidate: _Candidate, plain: Any, reason: str) -> Probe:
    """What a network offers that takes squares of one size only.

    Raises:
        ValueError: the user has not chosen the size, or the network does not take it.
    """
    name, own = candidate.model_name, _own_side(plain)
    side = _square_side(name, candidate.arguments.get("img_size"), own, reason)
    if failure := candidate.failure(plain, side, side):
        raise ValueError(
            f"{name} cannot take images of {side} x {side} ({failure}); its own size is {own}."
        )
    levels = _run(plain, candidate.in_channels, side, side)
    count = len(plain.feature_info.info)
    return Probe(name, levels, count, candidate.arguments, 1, False, side)
