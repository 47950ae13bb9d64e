"""What the weights of a network expect of the images: mean, deviation and order of channels."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class PixelStatistics:
    """Normalization of images whose values are 0 to 255, per channel in the given order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str

    def for_channels(self, count: int) -> PixelStatistics:
        """The same for images of ``count`` channels: their average for one, else in rotation.

        This goes with weights that were adapted alike, as :func:`adapt_input_conv` of timm does.
        """
        if count == 1:
            mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
            return replace(self, mean=(mean,), std=(std,))
        return replace(self, mean=_rotate(self.mean, count), std=_rotate(self.std, count))


def _rotate(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return tuple(values[index % len(values)] for index in range(count))


IMAGENET_RGB = PixelStatistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB")
"""Weights by torchvision, timm and most others."""

CAFFE_BGR = PixelStatistics((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR")
"""Weights by MSRA in Caffe, with the deviation inside the first convolution."""
