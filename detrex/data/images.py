"""Reading the image of a record."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.data import detection_utils as utils

__all__ = ["read_image"]


def read_image(dataset_dict: dict[str, Any], img_format: str) -> np.ndarray:
    """The image of a record, (H, W, 3) uint8, upright.

    Args:
        dataset_dict: has ``file_name``; gets ``height`` and ``width`` where it lacks them.
        img_format: "RGB" or "BGR".

    Raises:
        OSError: the image does not exist or cannot be decoded.
        ValueError: the image has another size than the record says.
    """
    file_name = dataset_dict["file_name"]
    try:
        image = utils.read_image(file_name, format=img_format)
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"image {file_name} does not exist; check image_root of the dataset."
        ) from e
    except (OSError, SyntaxError) as e:  # Pillow raises SyntaxError for a broken PNG
        raise OSError(
            f"image {file_name} cannot be read ({e}); repair it or remove it from the annotations."
        ) from e
    utils.check_image_size(dataset_dict, image)
    return image
