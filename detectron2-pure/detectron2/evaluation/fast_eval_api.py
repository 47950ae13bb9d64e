"""A COCO evaluator that is fast where faster-coco-eval is installed.

Its numbers are those of :class:`pycocotools.cocoeval.COCOeval`.
"""

from __future__ import annotations

from typing import Any

try:
    from faster_coco_eval import COCOeval_faster as COCOeval_opt
except ImportError:
    from detectron2.evaluation.coco_max_dets import COCOevalMaxDets

    COCOeval_opt: Any = COCOevalMaxDets  # type: ignore[no-redef]

__all__ = ["COCOeval_opt"]
