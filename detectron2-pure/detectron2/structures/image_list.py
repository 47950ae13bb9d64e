"""Images of different sizes in one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ImageList"]


class ImageList:
    """B images padded at the right and bottom to one size.

    Attributes:
        tensor: (B, ..., H, W).
        image_sizes: (height, width) of each image without its padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """The image (..., h, w) without its padding."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """The images on another device, or of another dtype, as of `Tensor.to`."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> ImageList:
        """Pad images (..., h, w) to the largest height and width and stack them.

        Args:
            tensors: images that differ in their last two dimensions only.
            size_divisibility: the common height and width become divisible by this.
            pad_value: the value of the padding.
            padding_constraints: ``square_size`` (height and width become this, if positive)
                and ``size_divisibility`` (instead of the argument), as
                `Backbone.padding_constraints` gives them.

        Raises:
            ValueError: there are no images, they differ elsewhere, or one exceeds the square.
        """
        if not isinstance(tensors, list | tuple) or not tensors:
            raise ValueError("ImageList.from_tensors() takes a list of at least one image.")
        for image in tensors:
            if not isinstance(image, Tensor) or image.shape[:-2] != tensors[0].shape[:-2]:
                shapes = [tuple(getattr(t, "shape", ())) for t in tensors]
                raise ValueError(f"Images have to agree in all but height and width: {shapes}.")
        image_sizes = [(int(t.shape[-2]), int(t.shape[-1])) for t in tensors]
        height, width = _padded_size(image_sizes, size_divisibility, padding_constraints or {})
        batch = torch.stack(
            [
                F.pad(image, (0, width - w, 0, height - h), value=pad_value)
                for image, (h, w) in zip(tensors, image_sizes, strict=True)
            ]
        )
        return ImageList(batch, image_sizes)


def _padded_size(
    sizes: list[tuple[int, int]], size_divisibility: int, constraints: Mapping[str, int]
) -> tuple[int, int]:
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    square = constraints.get("square_size", 0)
    if square > 0:
        if max(height, width) > square:
            raise ValueError(f"An image of {height} x {width} exceeds the square_size {square}.")
        height = width = square
    multiple = constraints.get("size_divisibility", 0) or size_divisibility
    if multiple > 1:
        height, width = (-(-side // multiple) * multiple for side in (height, width))
    return height, width
