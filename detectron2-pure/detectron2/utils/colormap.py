"""A palette of distinct colors for drawing."""

from __future__ import annotations

import colorsys
import functools

import numpy as np

__all__ = ["colormap", "palette_color", "random_color", "random_colors"]

_NUM_COLORS = 80
_LUMA = (0.299, 0.587, 0.114)


@functools.cache
def _palette() -> np.ndarray:
    """RGB colors in [0, 1], (N, 3).

    Each is, of the candidates, the one that differs most from those before it and from black, gray
    and white, so that the first few are the most distinct.
    """
    candidates = np.array(
        [
            colorsys.hsv_to_rgb(hue / 36, saturation, value)
            for value in (1.0, 0.8, 0.6)
            for saturation in (1.0, 0.75, 0.5)
            for hue in range(36)
        ]
    )
    chosen = [(gray,) * 3 for gray in (0.0, 0.5, 1.0)]
    distance = np.full(len(candidates), np.inf)
    while len(chosen) < _NUM_COLORS + 3:
        for color in chosen[-3:]:
            distance = np.minimum(distance, ((candidates - color) ** 2 @ _LUMA))
        chosen.append(tuple(candidates[distance.argmax()]))
    return np.array(chosen[3:], dtype=np.float32)


def colormap(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """The whole palette.

    Args:
        rgb: whether the channels are RGB; otherwise BGR.
        maximum: 255 or 1, the largest value of a channel.

    Returns:
        a float32 array (N, 3).
    """
    assert maximum in (255, 1), f"maximum must be 255 or 1, not {maximum}"
    colors = _palette() if rgb else _palette()[:, ::-1]
    return colors * np.float32(maximum)


def palette_color(index: int) -> tuple[float, ...]:
    """A color of the palette as RGB in [0, 1]; after the last comes the first again."""
    return tuple(_palette()[index % _NUM_COLORS].tolist())


def random_color(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """A random color of the palette, (3,); the arguments are those of :func:`colormap`."""
    return random_colors(1, rgb, maximum)[0]


def random_colors(N: int, rgb: bool = False, maximum: int = 255) -> list[np.ndarray]:
    """N random colors of the palette, all different as long as it has so many.

    Drawn from numpy's global generator. The arguments are those of :func:`colormap`.
    """
    colors = colormap(rgb, maximum)
    rounds = -(-N // len(colors))
    order = [i for _ in range(rounds) for i in np.random.permutation(len(colors))]
    return [colors[i] for i in order[:N]]
