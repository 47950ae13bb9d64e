"""Shapes and text on a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import matplotlib.colors as mplc
import numpy as np
from detectron2.utils.colormap import random_color
from detectron2.utils.generic_mask import GenericMask
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.path import Path

Color = Any
"""Whatever matplotlib takes for a color: a name, or RGB in [0, 1]."""


class VisImage:
    """A picture to draw on with matplotlib.

    Attributes:
        img: the picture underneath, RGB in [0, 255], (H, W, 3).
        scale: factor from its pixels to those of the result.
        fig, ax, canvas: matplotlib's objects; the axes have the coordinates of the picture.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        self.scale = scale
        self.height, self.width = img.shape[:2]
        self.fig = Figure(frameon=False)
        self.dpi = self.fig.get_dpi()
        # the hundredth of a pixel keeps matplotlib from rounding down
        size = [(side * scale + 1e-2) / self.dpi for side in (self.width, self.height)]
        self.fig.set_size_inches(*size)
        self.canvas = FigureCanvasAgg(self.fig)
        self.ax = self.fig.add_axes((0.0, 0.0, 1.0, 1.0))
        self.ax.axis("off")
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Replace the picture underneath what was drawn."""
        self.img = img.astype("uint8")
        self.ax.imshow(self.img, extent=(0, self.width, self.height, 0), interpolation="nearest")

    def save(self, filepath: str | os.PathLike[str]) -> None:
        """Write the picture; the extension says in which format."""
        self.fig.savefig(filepath)

    def get_image(self) -> np.ndarray:
        """The picture with all drawings, uint8 RGB (H * scale, W * scale, 3)."""
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


class Painter:
    """Draws single shapes; coordinates are those of the unscaled picture.

    All drawing methods return the :class:`VisImage`, which is also ``output``.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        """
        Args:
            img: RGB in [0, 255], (H, W, 3).
            scale: of the result.
        """
        self.output = VisImage(img, scale=scale)
        side = np.sqrt(self.output.height * self.output.width)
        self._default_font_size = max(side / 90, 9 / scale)

    def draw_box(
        self, box_coord: Any, alpha: float = 0.5, edge_color: Color = "g", line_style: str = "-"
    ) -> VisImage:
        """Draw the outline of a box (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = (float(v) for v in box_coord)
        self.output.ax.add_patch(
            Rectangle(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                fill=False,
                edgecolor=edge_color,
                linewidth=self._line_width(),
                alpha=alpha,
                linestyle=line_style,
            )
        )
        return self.output

    def draw_rotated_box_with_label(
        self,
        rotated_box: Any,
        alpha: float = 0.5,
        edge_color: Color = "g",
        line_style: str = "-",
        label: str | None = None,
    ) -> VisImage:
        """Draw the outline of a rotated box, its upper edge dashed, and its name."""
        x, y, w, h, angle = (float(v) for v in rotated_box)
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        corners = [(-w / 2, h / 2), (-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2)]
        points = [(cos * dx + sin * dy + x, cos * dy - sin * dx + y) for dx, dy in corners]
        for k, (start, end) in enumerate(zip(points, points[1:] + points[:1], strict=True)):
            xs, ys = zip(start, end, strict=True)
            self.draw_line(xs, ys, edge_color, "--" if k == 1 else line_style, self._line_width())
        if label is not None:
            self.draw_text(label, points[1], color=edge_color, horizontal_alignment="left")
        return self.output

    def draw_text(
        self,
        text: str,
        position: Any,
        *,
        font_size: float | None = None,
        color: Color = "g",
        horizontal_alignment: str = "center",
        vertical_alignment: str = "top",
        rotation: float = 0,
    ) -> VisImage:
        """Write on a dark background.

        Args:
            text: what to write.
            position: (x, y); the text moves as far as needed to stay in the picture.
            font_size: in points of the unscaled picture.
            color: is brightened until it can be read.
            horizontal_alignment: which part of the text is at x: "left", "center" or "right".
            vertical_alignment: which part of the text is at y: "top", "center" or "bottom".
            rotation: in degrees, counter-clockwise.
        """
        output = self.output
        size = (font_size or self._default_font_size) * output.scale
        x, y = (float(v) for v in position)
        padding = size * 0.12
        artist = output.ax.text(
            x,
            y,
            text,
            size=size,
            family="sans-serif",
            bbox={"facecolor": "black", "alpha": 0.7, "pad": padding, "edgecolor": "none"},
            verticalalignment=vertical_alignment,
            horizontalalignment=horizontal_alignment,
            color=_readable_on_black(color),
            zorder=10,
            rotation=rotation,
        )
        renderer = output.canvas.get_renderer()
        window = artist.get_window_extent(renderer).padded(padding * output.dpi / 72)
        (x0, y0), (x1, y1) = output.ax.transData.inverted().transform(window.get_points())
        # y points down in the picture and up in the window
        dx = _shift_into(x0, x1, output.width)
        dy = _shift_into(y1, y0, output.height)
        artist.set_position((x + dx, y + dy))
        return output

    def draw_circle(self, circle_coord: Any, color: Color, radius: float = 3) -> VisImage:
        """Draw a filled circle around (x, y)."""
        self.output.ax.add_patch(Circle(tuple(circle_coord), radius=radius, color=color, zorder=3))
        return self.output

    def draw_line(
        self,
        x_data: Sequence[float],
        y_data: Sequence[float],
        color: Color,
        linestyle: Any = "-",
        linewidth: float | None = None,
    ) -> VisImage:
        """Draw a line through points."""
        width = self._line_width() if linewidth is None else linewidth
        line = Line2D(x_data, y_data, color=color, linestyle=linestyle, linewidth=width)
        self.output.ax.add_line(line)
        return self.output

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: Color | None = None,
        *,
        edge_color: Color | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: int | None = 10,
    ) -> VisImage:
        """Draw a mask, and a text in its middle.

        A mask with holes is filled to the pixel and has no outline, which would cover what narrow
        holes show.

        Args:
            binary_mask: (H, W), anything but zero is inside.
            color: by default a random one.
            edge_color: color of the outline; by default a shade of ``color``.
            text: what to write.
            alpha: opacity.
            area_threshold: leave connected parts of fewer square pixels out, if there are no holes.
        """
        color = random_color(rgb=True, maximum=1) if color is None else color
        bitmap = np.asarray(binary_mask).astype(bool)
        mask = GenericMask(bitmap, self.output.height, self.output.width)
        regions = [rings for rings in mask.regions if _ring_area(rings[0]) >= (area_threshold or 0)]
        if any(len(rings) > 1 for rings in regions):
            self._draw_opacity(bitmap * alpha, color)
        else:
            self._draw_regions(regions, color, edge_color, alpha)
        if text is not None and regions:
            self.draw_text(text, middle_of(mask), color=color, vertical_alignment="center")
        return self.output

    def draw_soft_mask(
        self,
        soft_mask: np.ndarray,
        color: Color | None = None,
        *,
        text: str | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw a mask (H, W) of values in [0, 1], which make its opacity, and a text."""
        chosen: Color = random_color(rgb=True, maximum=1) if color is None else color
        soft_mask = np.asarray(soft_mask, dtype=np.float64)
        self._draw_opacity(soft_mask * alpha, chosen)
        inside = GenericMask(soft_mask > 0.5, self.output.height, self.output.width)
        if text is not None and inside.regions:
            self.draw_text(text, middle_of(inside), color=chosen, vertical_alignment="center")
        return self.output

    def draw_polygon(
        self, segment: Any, color: Color, edge_color: Color | None = None, alpha: float = 0.5
    ) -> VisImage:
        """Draw a polygon of points (N, 2)."""
        edge_color = _shade(color) if edge_color is None else mplc.to_rgb(edge_color)
        self.output.ax.add_patch(
            Polygon(
                np.asarray(segment),
                fill=True,
                facecolor=(*mplc.to_rgb(color), alpha),
                edgecolor=(*edge_color, 1.0),
                linewidth=self._line_width() / 2,
            )
        )
        return self.output

    def get_output(self) -> VisImage:
        """The picture with everything drawn so far."""
        return self.output

    def _line_width(self) -> float:
        return max(self._default_font_size * self.output.scale / 5, 1.2)

    def _draw_opacity(self, opacity: np.ndarray, color: Color) -> None:
        """Draw a color with an opacity (H, W) of its own in each pixel."""
        rgba = np.empty((*opacity.shape, 4))
        rgba[..., :3] = mplc.to_rgb(color)
        rgba[..., 3] = opacity
        extent = (0, self.output.width, self.output.height, 0)
        self.output.ax.imshow(rgba, extent=extent, interpolation="nearest")

    def _draw_regions(
        self,
        regions: list[list[np.ndarray]],
        color: Color,
        edge_color: Color | None,
        alpha: float,
    ) -> None:
        """Draw connected parts, each an outer ring and its holes."""
        edge_color = _shade(color) if edge_color is None else mplc.to_rgb(edge_color)
        paths = [
            Path.make_compound_path(*(Path(_close(ring), closed=True) for ring in rings))
            for rings in regions
        ]
        self.output.ax.add_collection(
            PathCollection(
                paths,
                facecolors=[(*mplc.to_rgb(color), alpha)],
                edgecolors=[(*edge_color, 1.0)],
                linewidths=[self._line_width() / 2],
                zorder=1,
            ),
            autolim=False,
        )


def middle_of(mask: GenericMask) -> tuple[float, float]:
    """A point (x, y) in the largest part of a mask: the median of its pixels."""
    rings = max(mask.regions, key=lambda rings: _ring_area(rings[0]))
    (x0, y0), (x1, y1) = rings[0].min(axis=0), rings[0].max(axis=0)
    left, top = max(int(x0), 0), max(int(y0), 0)
    ys, xs = mask.mask[top : int(np.ceil(y1)), left : int(np.ceil(x1))].nonzero()
    if len(xs) == 0:
        return (x0 + x1) / 2, (y0 + y1) / 2
    return float(np.median(xs)) + left + 0.5, float(np.median(ys)) + top + 0.5


def _ring_area(ring: np.ndarray) -> float:
    x, y = ring.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _close(ring: np.ndarray) -> np.ndarray:
    """A ring whose last point is its first."""
    return ring if np.array_equal(ring[0], ring[-1]) else np.concatenate([ring, ring[:1]])


def _shift_into(low: float, high: float, limit: float) -> float:
    """By how much to move an interval so that it lies in [0, limit], or else begins at 0."""
    return max(-low, 0.0) if low < 0 or high - low > limit else min(limit - high, 0.0)


def _shade(color: Color) -> tuple[float, ...]:
    """A darker variant."""
    return tuple(0.6 * channel for channel in mplc.to_rgb(color))


def _readable_on_black(color: Color) -> tuple[float, ...]:
    """The color, mixed with as much white as it takes to be bright."""
    rgb = np.array(mplc.to_rgb(color))
    brightness = float(rgb @ (0.299, 0.587, 0.114))
    white = max(0.0, (0.65 - brightness) / (1 - brightness)) if brightness < 1 else 0.0
    return tuple((rgb + (1 - rgb) * white).tolist())
