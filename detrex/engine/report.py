"""What a run leaves behind: curves, a contact sheet, and one summary of where everything is."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils.logger import create_small_table
from torch import nn

from detrex.engine.evaluation import Evaluation
from detrex.visualize import contact_sheet, pictures_of, plot_curves

__all__ = ["report_evaluation", "report_training", "summary"]

logger = logging.getLogger("detrex.engine")

_FILES = {
    "metrics.json": "losses and metrics, a line per record (and TensorBoard files beside it)",
    "curves.png": "loss and AP over the training",
    "contact_sheet.png": "test images with predicted and annotated boxes",
    "model_final.pth": "the last checkpoint",
    "model_best.pth": "the best checkpoint",
    "config.yaml": "the resolved config",
    "log.txt": "the log",
}


def report_training(
    output_dir: str, evaluation: Evaluation, model: nn.Module, results: Mapping[str, Any]
) -> None:
    """Draw the curves and the contact sheet of a training, and log where everything is."""
    draw_curves(output_dir)
    draw_contact_sheet(output_dir, evaluation, model)
    logger.info("Training is done.\n%s", summary(output_dir, results))


def report_evaluation(
    output_dir: str,
    checkpoint: str,
    evaluation: Evaluation,
    model: nn.Module,
    results: Mapping[str, Any],
) -> None:
    """Draw the contact sheet of an evaluated checkpoint, and log where everything is."""
    draw_contact_sheet(output_dir, evaluation, model)
    logger.info("Evaluated %s.\n%s", checkpoint, summary(output_dir, results))


def draw_curves(output_dir: str) -> Path:
    """``curves.png`` from ``metrics.json``."""
    return plot_curves(Path(output_dir) / "metrics.json", Path(output_dir) / "curves.png")


def draw_contact_sheet(output_dir: str, evaluation: Evaluation, model: nn.Module) -> Path | None:
    """``contact_sheet.png``: boxes on images of the test set, if its records name image files."""
    if not evaluation.samples:
        return None
    pictures = pictures_of(model, evaluation.samples, evaluation.mapper)
    output = Path(output_dir) / "contact_sheet.png"
    return contact_sheet(pictures, output, evaluation.class_names)


def summary(output_dir: str, results: Mapping[str, Any]) -> str:
    """Where everything is and how good it is, in a few lines."""
    folder = Path(output_dir)
    lines = [f"Everything is in {folder.resolve()}:"]
    width = max(map(len, _FILES))
    lines += [f"  {n:<{width}}  {what}" for n, what in _FILES.items() if (folder / n).is_file()]
    for task, metrics in results.items():
        if task == "ema":
            lines += [f"Averaged weights, {t}:\n{_table(m)}" for t, m in metrics.items()]
        else:
            lines.append(f"Results, {task}:\n{_table(metrics)}")
    return "\n".join(lines)


def _table(metrics: Mapping[str, float]) -> str:
    """The overall metrics; those per class are in the log."""
    shown = {k: v for k, v in metrics.items() if "-" not in k and not math.isnan(float(v))}
    return create_small_table(shown)
