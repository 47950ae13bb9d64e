"""The neck of the DETR family: every level projected to one width, and coarser levels added.

Letters: B batch, C channels, H height, W width, L levels.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from detrex.layers import ConvNormAct

__all__ = ["ChannelMapper"]


class ChannelMapper(nn.Module):
    """Project features to ``out_channels``: {name: (B, C_i, H_i, W_i)} -> L maps (B, C, H_i, W_i).

    What comes in can be said by hand (``input_shapes``) or learned from the backbone: then the
    neck has no parameters until :meth:`connect` is called, which the detector does.

    A convolution that a norm follows starts Xavier-uniform with zero bias, as in Deformable-DETR
    (arXiv:2010.04159); a bare one keeps torch's initial values, as in DETR (arXiv:2005.12872).

    Args:
        input_shapes: channels of each feature by name; by default the backbone's.
        in_features: names of the features to use, in this order; by default all.
        out_channels: width of every output.
        kernel_size, stride: of the projections.
        bias, groups, dilation: of all convolutions.
        norm_layer: a built norm over ``out_channels``; each level gets a copy of its own.
        activation: a built activation, copied likewise.
        num_outs: number of outputs. Those beyond the inputs come from 3x3 convolutions of stride
            2: the first on the last input feature itself, the others on the level before.

    Raises:
        ValueError: if features, channels or numbers do not fit together.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec] | None = None,
        in_features: Sequence[str] | None = None,
        out_channels: int = 256,
        kernel_size: int = 3,
        stride: int = 1,
        bias: bool = True,
        groups: int = 1,
        dilation: int = 1,
        norm_layer: nn.Module | None = None,
        activation: nn.Module | None = None,
        num_outs: int | None = None,
    ) -> None:
        super().__init__()
        _check_norm(norm_layer, out_channels)
        self.in_features = None if in_features is None else list(in_features)
        self.in_channels: dict[str, int] = {}
        self.num_outs = num_outs
        self._out_channels = out_channels
        self._kernel = (kernel_size, stride)
        self._options: dict[str, Any] = {"bias": bias, "groups": groups, "dilation": dilation}
        # a tuple, so that the prototypes are not registered as parts of the network
        self._prototypes = (norm_layer, activation)
        self.convs = nn.ModuleList()
        self.extra_convs = nn.ModuleList()
        if input_shapes is not None:
            self._build(self._select(input_shapes, "input_shapes"))

    def connect(self, output_shape: Mapping[str, ShapeSpec]) -> ChannelMapper:
        """Take the channels from a backbone, or check those given by hand against it.

        Args:
            output_shape: what ``backbone.output_shape()`` returns.

        Raises:
            ValueError: if the backbone lacks a feature or has other channels.
        """
        channels = self._select(output_shape, "the backbone")
        if not self.in_channels:
            self._build(channels)
        for name, given in self.in_channels.items():
            if channels[name] != given:
                raise ValueError(
                    f"The neck's input_shapes say that {name} has {given} channels, but the "
                    f"backbone gives {channels[name]}; leave input_shapes out to take the "
                    "backbone's."
                )
        return self

    @property
    def num_levels(self) -> int:
        """Number of outputs."""
        return len(self.convs) + len(self.extra_convs)

    def _select(self, shapes: Mapping[str, ShapeSpec], source: str) -> dict[str, int]:
        """Channels of the wanted features, in the order in which they are wanted."""
        if self.in_features is None:
            self.in_features = list(shapes)
        channels = {}
        for name in self.in_features:
            if name not in shapes:
                close = difflib.get_close_matches(str(name), list(shapes), n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(
                    f"The neck's in_features name {name!r}, but {source} has {list(shapes)}.{hint} "
                    "Without input_shapes and in_features the neck takes all that the backbone has."
                )
            width = shapes[name].channels
            if width is None:
                raise ValueError(f"The neck's {name} has no channels: {source} leaves them out.")
            channels[name] = width
        return channels

    def _build(self, channels: dict[str, int]) -> None:
        extra = 0 if self.num_outs is None else self.num_outs - len(channels)
        if extra < 0:
            raise ValueError(
                f"num_outs is {self.num_outs}, but the neck has {len(channels)} inputs "
                f"({', '.join(channels)}); take fewer in_features or more outputs."
            )
        self.in_channels = channels
        for width in channels.values():
            self.convs.append(self._conv(width, *self._kernel))
        width = list(channels.values())[-1]
        for _ in range(extra):
            self.extra_convs.append(self._conv(width, kernel_size=3, stride=2))
            width = self._out_channels

    def _conv(self, in_channels: int, kernel_size: int, stride: int) -> ConvNormAct:
        norm, activation = (copy.deepcopy(prototype) for prototype in self._prototypes)
        layer = ConvNormAct(
            in_channels,
            self._out_channels,
            kernel_size,
            stride,
            norm_layer=norm,
            activation=activation,
            **self._options,
        )
        if norm is not None:
            nn.init.xavier_uniform_(layer.conv.weight)
            if layer.conv.bias is not None:
                nn.init.zeros_(layer.conv.bias)
        return layer

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Levels in the order of ``in_features``, then the extra ones, finest to coarsest.

        Raises:
            RuntimeError: if the neck was never connected to a backbone.
        """
        if not self.in_channels:
            raise RuntimeError(
                "This neck does not know its inputs: give input_shapes, or call "
                "connect(backbone.output_shape())."
            )
        inputs = [features[name] for name in self.in_channels]
        outputs = [conv(x) for conv, x in zip(self.convs, inputs, strict=True)]
        x = inputs[-1]
        for conv in self.extra_convs:
            x = conv(x)
            outputs.append(x)
        return tuple(outputs)


def _check_norm(norm_layer: Any, out_channels: int) -> None:
    """Refuse a norm over another width here, where the message can say so."""
    for attribute in ("num_channels", "num_features"):
        width = getattr(norm_layer, attribute, out_channels)
        if width != out_channels:
            raise ValueError(
                f"The neck's norm_layer is over {width} channels, but out_channels is "
                f"{out_channels}."
            )
