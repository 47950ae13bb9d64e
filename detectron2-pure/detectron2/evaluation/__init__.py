"""Evaluation of detectors."""

from typing import Any

from detectron2._left_out import FULL_PACKAGE

from .coco_evaluation import COCOEvaluator
from .coco_max_dets import COCOevalMaxDets
from .evaluator import DatasetEvaluator, DatasetEvaluators, inference_context, inference_on_dataset
from .lvis_evaluation import LVISEvaluator
from .sem_seg_evaluation import SemSegEvaluator
from .testing import flatten_results_dict, print_csv_format, verify_results

__all__ = [
    "COCOEvaluator",
    "COCOevalMaxDets",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "LVISEvaluator",
    "SemSegEvaluator",
    "flatten_results_dict",
    "inference_context",
    "inference_on_dataset",
    "print_csv_format",
    "verify_results",
]

_LEFT_OUT = (
    "COCOPanopticEvaluator",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "PascalVOCDetectionEvaluator",
    "RotatedCOCOEvaluator",
)


def __getattr__(name: str) -> Any:
    if name in _LEFT_OUT:
        raise ImportError(
            f"{name} is not part of detectron2-pure; install the full detectron2 "
            f"({FULL_PACKAGE}) to use it."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
