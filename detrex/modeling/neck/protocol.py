"""What a neck has to do, whatever class it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from detectron2.layers import ShapeSpec
from torch import Tensor


class Neck(Protocol):
    """Maps a backbone's features to levels of one width, finest first.

    A neck is a :class:`torch.nn.Module`. One with an attribute ``num_pixel_levels`` has so many
    maps before the levels that don't become tokens: finer ones, for heads that predict masks
    (:attr:`detrex.modeling.memory.Memory.pixels`).
    """

    def connect(self, output_shape: Mapping[str, ShapeSpec]) -> Any:
        """Takes channels and strides from ``backbone.output_shape()``, or checks them.

        Raises:
            ValueError: the neck can't use this backbone.
        """

    def __call__(self, features: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Features by name ``(B, C_i, H_i, W_i)`` -> levels ``(B, C, H, W)``."""
