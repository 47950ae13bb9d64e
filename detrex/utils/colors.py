"""A color for each class."""

from __future__ import annotations

from typing import Any

import matplotlib

__all__ = ["class_color", "class_colors"]


def class_color(index: int) -> Any:
    """RGBA in 0..1: ten pairs of a dark and a light color, the dark ones first."""
    return matplotlib.colormaps["tab20"]((2 * index) % 20 + (index // 10) % 2)


def class_colors(count: int) -> list[list[int]]:
    """RGB in 0..255 of the first classes, as detectron2's ``thing_colors`` are."""
    return [[round(255 * part) for part in class_color(i)[:3]] for i in range(count)]
