"""The summary of COCO metrics, for any number of detections per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate


class _Row(NamedTuple):
    kind: str  # "precision" or "recall"
    iou: float | None  # None: mean over all thresholds
    area: str
    max_dets: int


def _summary_rows(params: Any) -> list[_Row]:
    """What the entries of ``COCOeval.stats`` mean."""
    most = params.maxDets[-1]
    areas = params.areaRngLbl[1:]
    kinds = {}
    for kind in ("precision", "recall"):
        kinds[kind] = [_Row(kind, iou, "all", most) for iou in (None, 0.5, 0.75)]
        if kind == "recall" and params.iouType != "keypoints":
            kinds[kind] = [_Row(kind, None, "all", limit) for limit in params.maxDets]
        kinds[kind] += [_Row(kind, None, area, most) for area in areas]
    return kinds["precision"] + kinds["recall"]


def format_summary(coco_eval: Any) -> str:
    """The table that pycocotools prints, as a string.

    Args:
        coco_eval: a COCO evaluator whose ``stats`` are filled.
    """
    params = coco_eval.params
    thresholds = f"{params.iouThrs[0]:.2f}:{params.iouThrs[-1]:.2f}"
    lines = []
    for row, value in zip(_summary_rows(params), coco_eval.stats, strict=False):
        title, short = ("Precision", "AP") if row.kind == "precision" else ("Recall", "AR")
        ious = thresholds if row.iou is None else f"{row.iou:.2f}"
        lines.append(
            f" {'Average ' + title:<18} ({short}) @[ IoU={ious:<9} | area={row.area:>6s} | "
            f"maxDets={row.max_dets:>3d} ] = {value:0.3f}"
        )
    return "\n".join(lines)


def percent(value: float) -> float:
    """COCO's fraction in percent; its -1 for "undefined" as NaN."""
    return float(value * 100) if value >= 0 else float("nan")


def per_class_ap(coco_eval: Any, class_names: Sequence[str]) -> list[tuple[str, float]]:
    """(name, AP in percent) of every class, which are in the order of the category ids."""
    precisions = coco_eval.eval["precision"]  # (T, R, K, A, M)
    assert len(class_names) == precisions.shape[2], (
        f"The dataset has {precisions.shape[2]} categories, but its metadata names "
        f"{len(class_names)} thing_classes."
    )
    rows = []
    for index, name in enumerate(class_names):
        precision = precisions[:, :, index, 0, -1]
        defined = precision[precision > -1]
        rows.append((name, percent(defined.mean() if defined.size else -1)))
    return rows


def table_of_three(rows: Sequence[tuple[str, float]]) -> str:
    """Names and values as a table, three pairs in a line."""
    columns = min(3, len(rows))
    lines = [sum(rows[i : i + columns], ()) for i in range(0, len(rows), columns)]
    headers = ["category", "AP"] * columns
    return tabulate(lines, headers=headers, tablefmt="pipe", floatfmt=".3f", numalign="left")


class COCOevalMaxDets(COCOeval):
    """pycocotools' evaluation whose summary follows ``params.maxDets``.

    The original reports AP at 100 detections whatever the parameter says, and -1 if 100 is not
    among its values.
    """

    def summarize(self) -> None:
        """Fill ``stats`` as COCO does, with the largest ``maxDets`` for AP; prints nothing.

        See :func:`format_summary` for a table of it.
        """
        if not self.eval:
            raise RuntimeError("Call accumulate() before summarize().")
        self.stats = np.array([self._mean(row) for row in _summary_rows(self.params)])

    def _mean(self, row: _Row) -> float:
        """Mean over IoU thresholds, recalls and categories; -1 if there is nothing to average."""
        params = self.params
        values = self.eval[row.kind]  # precision (T, R, K, A, M), recall (T, K, A, M)
        if row.iou is not None:
            values = values[np.isclose(params.iouThrs, row.iou)]
        area = params.areaRngLbl.index(row.area)
        values = values[..., area, list(params.maxDets).index(row.max_dets)]
        defined = values[values > -1]
        return float(defined.mean()) if defined.size else -1.0
