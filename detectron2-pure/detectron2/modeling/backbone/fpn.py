"""Feature pyramid network (arXiv:1612.03144)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import torch.nn.functional as F
from detectron2._left_out import explain_missing as _explain_missing
from detectron2.layers import Conv2d, get_norm, weight_init
from detectron2.modeling.backbone.backbone import Backbone
from torch import Tensor, nn

__all__ = ["FPN", "LastLevelMaxPool", "LastLevelP6P7"]


class TopBlock(Protocol):
    """A module that makes ``num_levels`` coarser maps from the one named ``in_feature``."""

    num_levels: int
    in_feature: str

    def __call__(self, x: Tensor) -> list[Tensor]: ...


class FPN(Backbone):
    """Maps of equal width at all scales of a backbone, each informed by the coarser ones.

    A feature of stride 2**i gives the output ``p{i}``. Parameters are named
    ``fpn_lateral{i}`` and ``fpn_output{i}``.

    Args:
        bottom_up: the backbone.
        in_features: its features to use, finest first; each has twice the stride of the last.
        out_channels: channels of all outputs.
        norm: as of ``get_norm``.
        top_block: module that makes coarser outputs; its ``in_feature`` is a feature of the
            backbone or an output.
        fuse_type: ``"sum"`` or ``"avg"`` of a map and the coarser one.
        square_pad: side of the square to which images should be padded, for backbones that
            need one; 0: no requirement.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str | Callable[[int], nn.Module] = "",
        top_block: TopBlock | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        if not in_features:
            raise AssertionError("FPN needs at least one of the backbone's features.")
        if fuse_type not in ("sum", "avg"):
            raise AssertionError(f"fuse_type is 'sum' or 'avg', not {fuse_type!r}.")
        shapes = bottom_up.output_shape()
        strides = [int(shapes[name].stride or 0) for name in in_features]
        _assert_strides_are_log2_contiguous(strides)
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        self.top_block = top_block
        self._stages = [int(math.log2(stride)) for stride in strides]
        for name, stage in zip(in_features, self._stages, strict=True):
            self.add_module(
                f"fpn_lateral{stage}", _conv(int(shapes[name].channels or 0), out_channels, 1, norm)
            )
            self.add_module(f"fpn_output{stage}", _conv(out_channels, out_channels, 3, norm))
        last = self._stages[-1]
        extra = range(last + 1, last + 1 + (top_block.num_levels if top_block else 0))
        self._out_features = [f"p{stage}" for stage in (*self._stages, *extra)]
        self._out_feature_strides = {f"p{stage}": 2**stage for stage in (*self._stages, *extra)}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad
        self._fuse_type = fuse_type

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, C, H, W) -> maps (B, out_channels, H / 2**i, W / 2**i) by name p{i}."""
        features = self.bottom_up(x)
        outputs: list[Tensor] = []
        coarser: Tensor | None = None
        for name, stage in zip(self.in_features[::-1], self._stages[::-1], strict=True):
            coarser = self._fuse(self.get_submodule(f"fpn_lateral{stage}")(features[name]), coarser)
            outputs.insert(0, self.get_submodule(f"fpn_output{stage}")(coarser))
        return append_top_block(self.top_block, features, outputs, self._out_features)

    def _fuse(self, lateral: Tensor, coarser: Tensor | None) -> Tensor:
        if coarser is None:
            return lateral
        total = lateral + F.interpolate(coarser, size=lateral.shape[-2:], mode="nearest")
        return total / 2 if self._fuse_type == "avg" else total


def append_top_block(
    top_block: TopBlock | None,
    features: Mapping[str, Tensor],
    outputs: list[Tensor],
    names: Sequence[str],
) -> dict[str, Tensor]:
    """A pyramid's outputs by name, with those that ``top_block`` makes behind them.

    Args:
        top_block: makes coarser maps, if there is one.
        features: the backbone's, which its ``in_feature`` may be one of.
        outputs: maps of the pyramid, finest first.
        names: of all outputs.
    """
    if top_block is not None:
        source = features.get(top_block.in_feature)
        if source is None:
            source = outputs[list(names).index(top_block.in_feature)]
        outputs = [*outputs, *top_block(source)]
    return dict(zip(names, outputs, strict=True))


def _conv(
    in_channels: int, out_channels: int, size: int, norm: str | Callable[[int], nn.Module]
) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=size,
        padding=size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
    )
    weight_init.c2_xavier_fill(conv)
    return conv


def _assert_strides_are_log2_contiguous(strides: Sequence[int]) -> None:
    """Raise AssertionError unless each stride is twice the one before it."""
    for before, stride in pairwise(strides):
        if stride != 2 * before:
            raise AssertionError(f"Strides {stride} {before} are not log2 contiguous.")


class LastLevelMaxPool(nn.Module):
    """p6 as every second cell of p5 (Feature pyramid networks, R-CNN variant)."""

    def __init__(self) -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> one map of half the size."""
        return [F.max_pool2d(x, kernel_size=1, stride=2, padding=0)]


class LastLevelP6P7(nn.Module):
    """p6 and p7 by strided convolutions (RetinaNet, arXiv:1708.02002).

    Args:
        in_channels: channels of ``in_feature``.
        out_channels: channels of p6 and p7.
        in_feature: where p6 starts from, a feature of the backbone or an output.
    """

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        for module in (self.p6, self.p7):
            weight_init.c2_xavier_fill(module)

    def forward(self, c5: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> maps of half and a quarter of the size."""
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]


__getattr__ = _explain_missing(__name__)
