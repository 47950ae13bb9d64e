"""Reading images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image

__all__ = [
    "SizeMismatchError",
    "check_image_size",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "read_image",
]

# ITU-R BT.601: rows are Y, U, V of R, G, B in [0, 1].
_RGB_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
)

_Turn = Image.Transpose
_UPRIGHT = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
"""EXIF orientation -> what makes the image upright."""


class SizeMismatchError(ValueError):
    """The image on disk does not have the size that its annotations speak of."""


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """A PIL image as an array.

    Args:
        image: of any mode.
        format: a PIL mode such as "RGB", or "BGR", or "YUV-BT.601"; None keeps the mode.

    Returns:
        (H, W, 3), with "L" (H, W, 1); uint8, but floats for "YUV-BT.601". With None whatever
        the image has.
    """
    if format is not None:
        image = image.convert("RGB" if format in ("BGR", "YUV-BT.601") else format)
    array = np.asarray(image)
    if format == "L":
        return array[:, :, None]
    if format == "BGR":
        return array[:, :, ::-1]
    if format == "YUV-BT.601":
        return (array / 255.0) @ _RGB_TO_YUV.T
    return array


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str | None) -> np.ndarray:
    """An image in one of the formats of ``read_image`` as RGB, for showing it.

    Args:
        image: (H, W, C).
        format: what it is in.

    Returns:
        (H, W, 3) uint8 in [0, 255].
    """
    array = image.cpu().numpy() if isinstance(image, torch.Tensor) else image
    if format == "BGR":
        return array[:, :, ::-1]
    if format == "YUV-BT.601":
        rgb = array @ np.linalg.inv(_RGB_TO_YUV).T
        return np.rint(rgb * 255.0).clip(0, 255).astype(np.uint8)
    mode, size = format or "RGB", (array.shape[1], array.shape[0])
    pixels = Image.frombytes(mode, size, array.astype(np.uint8).tobytes())
    return np.asarray(pixels.convert("RGB"))


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Turn a photograph the way its camera was held."""
    # Not ImageOps.exif_transpose: that also rewrites the other tags, some of which are broken
    # in many a file, and fails.
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image, upright according to its EXIF tag.

    Args:
        file_name: anything that ``PathManager`` can open.
        format: see ``convert_PIL_to_numpy``.

    Returns:
        (H, W, C) array.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is no image, or a damaged one.
    """
    try:
        with PathManager.open(file_name, "rb") as f:
            image = Image.open(f)
            return convert_PIL_to_numpy(_apply_exif_orientation(image), format)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"Image file '{file_name}' does not exist.") from e
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:
        # PIL reports some broken PNGs as SyntaxError.
        raise OSError(f"Cannot read image file '{file_name}': {e}") from e


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare a record with its image, and fill in "height" and "width" where missing.

    Args:
        dataset_dict: the record; may get the two keys.
        image: (H, W, ...).

    Raises:
        SizeMismatchError: the record has another size.
    """
    height, width = image.shape[:2]
    if "width" in dataset_dict and "height" in dataset_dict:
        expected = (dataset_dict["width"], dataset_dict["height"])
        if (width, height) != expected:
            name = dataset_dict.get("file_name")
            raise SizeMismatchError(
                f"Mismatched image shape{f' for image {name}' if name else ''}, got "
                f"{(width, height)}, expect {expected}. Please check the width/height in your "
                "annotation (and whether they regard the EXIF orientation of the image)."
            )
    dataset_dict.setdefault("width", width)
    dataset_dict.setdefault("height", height)
