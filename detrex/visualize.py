"""Pictures of a training run: detections on images, sheets of them, and learning curves.

Everything is drawn with matplotlib's object interface, so no window, no global state and no
change of the caller's backend. Boxes are absolute xyxy in the pixels of the image they are for.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torchvision.ops import box_iou

from detrex.utils.colors import class_color

__all__ = ["Picture", "contact_sheet", "draw_detections", "pictures_of", "plot_curves"]

logger = logging.getLogger(__name__)

_TRUTH_COLOR = "white"
_DASHES = (0, (4, 2.5))


@dataclass
class Picture:
    """An image with the boxes to draw on it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        boxes: (N, 4) predicted boxes.
        classes: (N) class index of each.
        scores: (N) confidence in 0..1; None where there is none.
        true_boxes, true_classes: the annotated boxes (M, 4) and their classes (M); None for none.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None
    true_boxes: np.ndarray | None = None
    true_classes: np.ndarray | None = None


def draw_detections(
    picture: Picture,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.0,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw predicted boxes (solid, with class and score) and annotated ones (dashed).

    An annotated box says its class where no drawn prediction finds it: right class, IoU of 0.5.

    Args:
        picture: what to draw; it is not changed.
        class_names: by class index; None shows the indices.
        score_threshold: predictions of a lower score are left out.
        scale: size of the result relative to the image; text keeps its size.

    Returns:
        (scale * H, scale * W, 3) uint8, RGB.
    """
    height, width = picture.image.shape[:2]
    dpi = 100
    figure = Figure(figsize=(width * scale / dpi, height * scale / dpi), dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    _draw(axes, picture, class_names, score_threshold, font_size=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def contact_sheet(
    pictures: Sequence[Picture],
    output: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.3,
    columns: int | None = None,
    title: str | None = None,
) -> Path:
    """Write a grid of pictures as one PNG: predictions solid, annotations dashed.

    Args:
        pictures: in the order of reading; at least one.
        output: path of the PNG; its directory is created.
        class_names: by class index; None shows the indices.
        score_threshold: predictions of a lower score are left out. Models trained with focal loss
            are seldom sure: many of their right boxes score below 0.5.
        columns: pictures per row; None takes 4 small or 3 large ones.
        title: a line above the grid.

    Raises:
        ValueError: no pictures.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture.")
    width, height = _cell_size(pictures)
    columns = min(columns or (4 if width < 3 else 3), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    header = 0.6  # inches
    total_height = rows * height + header
    figure = Figure(figsize=(columns * width, total_height), dpi=150, facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - header / total_height, 0.03, 0.03)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture in zip(grid.flat, pictures, strict=False):
        _draw(axes, picture, class_names, score_threshold, font_size=7)
    handles = [Line2D([], [], color="tab:blue", lw=1.6, label=f"prediction ≥ {score_threshold:g}")]
    if any(p.true_boxes is not None for p in pictures):
        handles.append(
            Line2D([], [], color="0.4", lw=1.2, ls=_DASHES, label="annotation, named if missed")
        )
    top = 1 - 0.5 * header / total_height
    figure.legend(
        handles=handles, loc="center right", bbox_to_anchor=(0.99, top), ncols=2, frameon=False
    )
    if title:
        figure.text(0.01, top, title, va="center", fontsize=12)
    return _save(figure, output)


@torch.no_grad()
def pictures_of(
    model: torch.nn.Module,
    dataset_dicts: Iterable[dict[str, Any]],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
) -> list[Picture]:
    """Run ``model`` on dataset dicts, one image at a time, and pair its boxes with the annotations.

    Args:
        model: a detectron2-style detector: list of dicts in, list of ``{"instances": Instances}``
            out, boxes in the pixels of the image file. Its training mode is restored.
        dataset_dicts: records with ``file_name`` and perhaps ``annotations``.
        mapper: makes the model's input of a record, as the test loader's mapper does.
    """
    was_training = model.training
    model.eval()
    try:
        return [_picture_of(model, record, mapper) for record in dataset_dicts]
    finally:
        model.train(was_training)


def plot_curves(metrics_file: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Plot the loss and the average precision that a training run logged.

    Args:
        metrics_file: ``metrics.json``: a json object per line with ``iteration`` and any of
            ``total_loss``, ``bbox/AP``, ``bbox/AP50``. Where a run was resumed, the later record
            of an iteration counts; what is not a number is left out.
        output: path of the PNG; its directory is created.

    Raises:
        FileNotFoundError: ``metrics_file`` does not exist.
    """
    records = _read_metrics(Path(metrics_file))
    figure = Figure(figsize=(9, 3.4), dpi=150, facecolor="white", layout="constrained")
    loss_axes, precision_axes = figure.subplots(1, 2, sharex=True)
    iterations, losses = _series(records, "total_loss")
    if len(iterations) > 20:
        loss_axes.plot(iterations, losses, color="tab:blue", alpha=0.25, lw=1)
        loss_axes.plot(iterations, _smooth(losses), color="tab:blue", lw=1.8)
    else:
        loss_axes.plot(iterations, losses, color="tab:blue", lw=1.8, marker=".")
    _finish_panel(loss_axes, "Total loss", bool(len(iterations)))
    loss_axes.set_ylim(bottom=0)
    for key, label, color, lift in (
        ("bbox/AP50", "AP50", "tab:orange", 6),
        ("bbox/AP", "AP", "tab:green", -14),
    ):
        iterations, values = _series(records, key)
        if len(iterations):
            precision_axes.plot(
                iterations, values, color=color, lw=1.8, marker="o", ms=4, label=label
            )
            precision_axes.annotate(
                f"{values[-1]:.1f}",
                (iterations[-1], values[-1]),
                textcoords="offset points",
                xytext=(0, lift),
                ha="center",
                color=color,
                fontsize=9,
            )
    drawn = bool(precision_axes.lines)
    _finish_panel(precision_axes, "Box average precision", drawn)
    if drawn:
        precision_axes.set_ylim(0, 105)
        precision_axes.legend(frameon=False, loc="lower right")
    return _save(figure, output)


def _cell_size(pictures: Sequence[Picture]) -> tuple[float, float]:
    """Inches per picture: large images hold many objects, and text needs room between them."""
    sizes = np.array([p.image.shape[:2] for p in pictures])
    width = float(np.clip(np.median(sizes.max(1)) / 150, 2.6, 4.2))
    return width, width * float(np.clip(np.median(sizes[:, 0] / sizes[:, 1]), 0.5, 1.5))


def _draw(
    axes: Axes,
    picture: Picture,
    class_names: Sequence[str] | None,
    score_threshold: float,
    font_size: float,
) -> None:
    height, width = picture.image.shape[:2]
    axes.imshow(picture.image, interpolation="bilinear")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
    scores = np.ones(len(picture.boxes)) if picture.scores is None else np.asarray(picture.scores)
    shown = [i for i in np.argsort(scores, kind="stable") if scores[i] >= score_threshold]
    _draw_truth(axes, picture, shown, class_names, font_size)
    for index in shown:  # the surest last, on top
        label = _class_name(int(picture.classes[index]), class_names)
        if picture.scores is not None:
            label = f"{label} {scores[index]:.0%}"
        color = class_color(int(picture.classes[index]))
        _add_box(axes, picture.boxes[index], color, 1.6, "-")
        _add_label(axes, picture.boxes[index], label, color, font_size)


def _draw_truth(
    axes: Axes,
    picture: Picture,
    shown: Sequence[int],
    class_names: Sequence[str] | None,
    font_size: float,
) -> None:
    """Annotated boxes; those that no shown prediction finds also say their class."""
    if picture.true_boxes is None:
        return
    true_boxes = np.asarray(picture.true_boxes, dtype=float).reshape(-1, 4)
    missed = _missed(picture, true_boxes, shown)
    for index, box in enumerate(true_boxes):
        # A dark line below the light dashes is seen on any background.
        _add_box(axes, box, "black", 1.1, "-")
        _add_box(axes, box, _TRUTH_COLOR, 1.1, _DASHES)
        if picture.true_classes is not None and missed[index]:
            axes.text(
                float(box[2]) - 0.5,
                float(box[3]) - 0.5,
                _class_name(int(picture.true_classes[index]), class_names),
                va="bottom",
                ha="right",
                fontsize=0.85 * font_size,
                color="black",
                bbox={"facecolor": _TRUTH_COLOR, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
                clip_on=True,
            )


def _missed(picture: Picture, true_boxes: np.ndarray, shown: Sequence[int]) -> np.ndarray:
    """(M) whether no shown prediction of the right class overlaps with an IoU of at least 0.5."""
    if picture.true_classes is None or not len(shown):
        return np.ones(len(true_boxes), dtype=bool)
    boxes = np.asarray(picture.boxes, dtype=float)[list(shown)]
    iou = box_iou(torch.from_numpy(true_boxes), torch.from_numpy(boxes)).numpy()
    same = np.asarray(picture.true_classes)[:, None] == np.asarray(picture.classes)[list(shown)]
    return ~((iou >= 0.5) & same).any(1)


def _add_box(axes: Axes, box: np.ndarray, color: Any, width: float, style: Any) -> None:
    x0, y0, x1, y1 = (float(v) for v in box)
    # imshow puts the center of the first pixel at 0, boxes count from its corner.
    axes.add_patch(
        Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=color, lw=width, ls=style)
    )


def _add_label(axes: Axes, box: np.ndarray, label: str, color: Any, font_size: float) -> None:
    # Predicted boxes may begin outside the image; their text stays inside.
    x0, y0 = max(float(box[0]), 0.0) - 0.5, max(float(box[1]), 0.0) - 0.5
    red, green, blue = matplotlib.colors.to_rgb(color)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
    room_above = y0 > 0.07 * abs(np.subtract(*axes.get_ylim()))
    axes.text(
        x0,
        y0,
        label,
        va="bottom" if room_above else "top",
        ha="left",
        fontsize=font_size,
        color="black" if bright else "white",
        bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8, "alpha": 0.9},
        clip_on=True,
    )


def _class_name(index: int, class_names: Sequence[str] | None) -> str:
    if class_names is None or index >= len(class_names):
        return str(index)
    return class_names[index]


def _picture_of(
    model: torch.nn.Module,
    record: dict[str, Any],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
) -> Picture:
    found = model([mapper(record)])[0]["instances"].to("cpu")
    truth = [a for a in record.get("annotations", []) if not a.get("iscrowd", 0)]
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in truth]
    return Picture(
        image=read_image(record["file_name"], format="RGB"),
        boxes=found.pred_boxes.tensor.float().numpy(),
        classes=found.pred_classes.numpy(),
        scores=found.scores.float().numpy(),
        true_boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        true_classes=np.array([a["category_id"] for a in truth], dtype=int),
    )


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """Records in the order of their iterations, the last one of each."""
    if not path.is_file():
        raise FileNotFoundError(
            f"metrics file {path} does not exist; the run has logged nothing yet."
        )
    records: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records.setdefault(record["iteration"], {}).update(record)
        except (ValueError, KeyError, TypeError):
            # A run that was killed leaves half a line behind.
            logger.warning("%s: line %d is not a record of an iteration; left out", path, number)
    return [records[iteration] for iteration in sorted(records)]


def _series(records: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(r["iteration"], r[key]) for r in records if isinstance(r.get(key), int | float)]
    points = [p for p in points if math.isfinite(p[1])]
    iterations, values = np.array(points, dtype=float).reshape(-1, 2).T
    return iterations, values


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a twentieth of the curve, shorter at its ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _finish_panel(axes: Axes, title: str, has_data: bool) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not has_data:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", color="0.5")


def _save(figure: Figure, output: str | os.PathLike[str]) -> Path:
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(suffix=".png", dir=path.parent)
    os.close(handle)
    try:
        FigureCanvasAgg(figure).print_png(scratch)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)
    return path
