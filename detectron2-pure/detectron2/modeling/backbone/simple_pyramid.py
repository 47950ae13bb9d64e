"""Maps of several scales from the one map of a plain transformer (arXiv:2203.16527)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.fpn import (
    TopBlock,
    _assert_strides_are_log2_contiguous,
    append_top_block,
)
from torch import Tensor, nn

__all__ = ["SimpleFeaturePyramid"]

Norm = Callable[[int], nn.Module]


class SimpleFeaturePyramid(Backbone):
    """Maps of several scales, each made from the one map of a plain backbone.

    The map of stride 2**i is ``p{i}``; its layers are named ``simfp_{i}``.

    Args:
        net: the backbone.
        in_feature: the name of its map.
        out_channels: channels of all maps.
        scale_factors: how much finer than the map each output is, in descending order, each half of
            the one before: some of 4, 2, 1 and 0.5.
        top_block: module that makes coarser maps; its ``in_feature`` is a feature of ``net`` or an
            output.
        norm: as of ``get_norm``.
        square_pad: side of the square to which images should be padded; 0: no requirement.

    Raises:
        NotImplementedError: for another factor.
    """

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: TopBlock | None = None,
        norm: str | Norm = "LN",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shape = net.output_shape()[in_feature]
        strides = [int((shape.stride or 0) / scale) for scale in scale_factors]
        _assert_strides_are_log2_contiguous(strides)
        levels = [int(math.log2(stride)) for stride in strides]
        self._stages = [f"simfp_{level}" for level in levels]
        for name, scale in zip(self._stages, scale_factors, strict=True):
            self.add_module(
                name, _pyramid_stage(int(shape.channels or 0), out_channels, scale, norm)
            )
        self.net = net
        self.in_feature = in_feature
        self.top_block = top_block
        extra = range(levels[-1] + 1, levels[-1] + 1 + (top_block.num_levels if top_block else 0))
        self._out_feature_strides = {f"p{level}": 2**level for level in (*levels, *extra)}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest map that is made from the backbone's."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``size_divisibility`` and ``square_size``."""
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, C, H, W) -> maps (B, out_channels, H / 2**i, W / 2**i) by name p{i}."""
        features = self.net(x)
        outputs = [self.get_submodule(name)(features[self.in_feature]) for name in self._stages]
        return append_top_block(self.top_block, features, outputs, self._out_features)


def _pyramid_stage(
    channels: int, out_channels: int, scale: float, norm: str | Norm
) -> nn.Sequential:
    """Resize a map by ``scale``, then project it by a 1 x 1 and a 3 x 3 convolution."""
    layers: list[nn.Module | None] = []
    width = channels
    if scale == 4.0:
        layers = [
            nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2),
            get_norm(norm, channels // 2),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, kernel_size=2, stride=2),
        ]
        width = channels // 4
    elif scale == 2.0:
        layers = [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)]
        width = channels // 2
    elif scale == 0.5:
        layers = [nn.MaxPool2d(kernel_size=2, stride=2)]
    elif scale != 1.0:
        raise NotImplementedError(f"scale_factors may hold 4.0, 2.0, 1.0 and 0.5, not {scale}.")
    for size, inputs in ((1, width), (3, out_channels)):
        conv = Conv2d(
            inputs,
            out_channels,
            kernel_size=size,
            padding=size // 2,
            bias=not norm,
            norm=get_norm(norm, out_channels),
        )
        layers.append(conv)
    return nn.Sequential(*(layer for layer in layers if layer is not None))
