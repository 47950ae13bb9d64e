"""Cutting polygons at a rectangle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["clip_polygons"]


def clip_polygons(
    polygons: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray
) -> list[np.ndarray]:
    """The parts of polygons, (P, 2) each, in the rectangle from ``low`` (2,) to ``high`` (2,).

    Those outside vanish. A concave polygon that falls apart stays one polygon, its parts joined
    by edges along the border that enclose no area (Sutherland and Hodgman's clipping). Results
    are float64 and run counter-clockwise to the eye from the first point that is left, as
    fvcore's mostly do.
    """
    cut = (_clip(np.array(p, dtype=np.float64), low, high) for p in polygons)
    return [_turned(p) for p in cut if _twice_area(p) != 0]


def _clip(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Cut a polygon (P, 2) to the rectangle from ``low`` (2,) to ``high`` (2,)."""
    for axis in (0, 1):
        points = _clip_half_plane(points, axis, low[axis], 1.0)
        points = _clip_half_plane(points, axis, high[axis], -1.0)
    return points


def _clip_half_plane(points: np.ndarray, axis: int, limit: float, sign: float) -> np.ndarray:
    """The part of a polygon where ``sign * (coordinate - limit) >= 0``."""
    depth = sign * (points[:, axis] - limit)
    if (depth >= 0).all():  # the most common case
        return points
    # The edge that ends in a point begins in the one before, the first one's in the last.
    start, start_depth = np.roll(points, 1, axis=0), np.roll(depth, 1)
    crosses = (start_depth >= 0) != (depth >= 0)
    along = np.divide(start_depth, start_depth - depth, where=crosses, out=np.zeros(len(depth)))
    crossing = start + along[:, None] * (points - start)
    crossing[:, axis] = limit
    candidates = np.stack([crossing, points], axis=1)
    return candidates[np.stack([crosses, depth >= 0], axis=1)]


def _twice_area(points: np.ndarray) -> float:
    """Of a polygon (P, 2), by the shoelace formula; positive if clockwise to the eye (y down)."""
    x, y = points.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _turned(points: np.ndarray) -> np.ndarray:
    """The polygon counter-clockwise to the eye, beginning with the same point."""
    return np.roll(points[::-1], 1, axis=0) if _twice_area(points) > 0 else points
