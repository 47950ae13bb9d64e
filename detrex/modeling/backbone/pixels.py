"""What the weights of a network expect of the images: mean, deviation and order of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class PixelStatistics:
    """Normalization of images whose values are 0 to 255, per channel in the given order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str

    @classmethod
    def of_unit_range(cls, mean: Sequence[float], std: Sequence[float]) -> PixelStatistics:
        """Those of RGB images whose values are 0 to 1, as timm and torchvision give them."""
        return cls(tuple(255.0 * v for v in mean), tuple(255.0 * v for v in std), "RGB")

    def for_channels(self, count: int) -> PixelStatistics:
        """The same for images of ``count`` channels: their average for one, else in rotation.

        This goes with weights that were adapted alike, as ``adapt_input_conv`` of timm does.
        """
        if count == 1:
            mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
            return replace(self, mean=(mean,), std=(std,))
        return replace(self, mean=_rotate(self.mean, count), std=_rotate(self.std, count))


def _rotate(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return tuple(values[index % len(values)] for index in range(count))


class PixelProperties:
    """What a backbone says of the images that its weights expect; it sets ``_pixels``."""

    _pixels: PixelStatistics

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """Mean of the images that the weights expect, 0 to 255, one value per channel."""
        return self._pixels.mean

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """Standard deviation that goes with :attr:`pixel_mean`."""
        return self._pixels.std

    @property
    def pixel_order(self) -> str:
        """``"RGB"`` or ``"BGR"``, the order of channels that goes with :attr:`pixel_mean`."""
        return self._pixels.order


IMAGENET_RGB = PixelStatistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB")
"""Weights by torchvision, timm and most others."""

CAFFE_BGR = PixelStatistics((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR")
"""Weights by MSRA in Caffe, with the deviation inside the first convolution."""
