"""Images of different sizes in one tensor."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ImageList"]


class ImageList:
    """B images padded at the right and bottom to one size.

    TorchScript can compile it. In a traced model the image sizes are tensors, so that the trace
    holds for images of other sizes.

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

    @torch.jit.unused
    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        """The images on another device, or of another dtype, as of ``Tensor.to``."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self):  # TorchScript finds no torch.device here
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: list[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> "ImageList":
        """Pad images (..., h, w) to the largest height and width and stack them.

        Args:
            tensors: images that differ in their last two dimensions only.
            size_divisibility: the common height and width become divisible by this.
            pad_value: the value of the padding.
            padding_constraints: ``square_size`` (height and width become this, if positive)
                and ``size_divisibility`` (instead of the argument), as
                ``Backbone.padding_constraints`` gives them.

        Raises:
            ValueError: there are no images, they differ elsewhere, or one exceeds the square.
        """
        if not isinstance(tensors, (list, tuple)) or len(tensors) == 0:
            raise ValueError("ImageList.from_tensors() takes a list of at least one image.")
        for image in tensors:
            if not isinstance(image, Tensor):
                raise ValueError("ImageList.from_tensors() takes nothing but tensors.")
            if image.shape[:-2] != tensors[0].shape[:-2]:
                raise ValueError(
                    "Images have to agree in all but height and width: "
                    f"{[list(t.shape) for t in tensors]}."
                )
        multiple, square = size_divisibility, 0
        if padding_constraints is not None:
            square = padding_constraints.get("square_size", 0)
            multiple = padding_constraints.get("size_divisibility", 0) or multiple
        if not torch.jit.is_scripting() and torch.jit.is_tracing():
            return _from_traced_tensors(tensors, multiple, square, pad_value)
        image_sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        height = _padded_side([size[0] for size in image_sizes], multiple, square)
        width = _padded_side([size[1] for size in image_sizes], multiple, square)
        padded = [
            F.pad(image, [0, width - image.shape[-1], 0, height - image.shape[-2]], value=pad_value)
            for image in tensors
        ]
        return ImageList(torch.stack(padded), image_sizes)


def _padded_side(sides: list[int], multiple: int, square: int) -> int:
    side = max(sides)
    if square > 0:
        if side > square:
            raise ValueError(f"An image with a side of {side} exceeds the square_size {square}.")
        side = square
    return (side + multiple - 1) // multiple * multiple if multiple > 1 else side


@torch.jit.unused
def _from_traced_tensors(
    tensors: list[Tensor], multiple: int, square: int, pad_value: float
) -> ImageList:
    """While a model is traced, sizes are tensors, and all that is done with them is recorded."""
    sizes = [torch.stack([torch.as_tensor(side) for side in t.shape[-2:]]) for t in tensors]
    padded = torch.stack(sizes).amax(dim=0)
    if square > 0:
        padded = torch.full_like(padded, square)
    if multiple > 1:
        padded = (padded + multiple - 1).div(multiple, rounding_mode="floor") * multiple
    borders = [padded - size for size in sizes]
    images = [
        F.pad(image, [0, border[1], 0, border[0]], value=pad_value)  # type: ignore[list-item]
        for image, border in zip(tensors, borders, strict=True)
    ]
    return ImageList(torch.stack(images), sizes)  # type: ignore[arg-type]
