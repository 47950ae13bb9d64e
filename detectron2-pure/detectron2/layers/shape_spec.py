"""What a module says about a tensor's shape before there is one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Shape of a feature map, as far as known.

    Attributes:
        channels: number of channels.
        height: height in cells.
        width: width in cells.
        stride: side of one cell in pixels of the input image.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
