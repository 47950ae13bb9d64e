"""Evaluation of detectors."""

from typing import Any

from detectron2._left_out import FULL_PACKAGE
from detectron2.evaluation.coco_evaluation import COCOEvaluator
from detectron2.evaluation.coco_max_dets import COCOevalMaxDets
from detectron2.evaluation.evaluator import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
)
from detectron2.evaluation.lvis_evaluation import LVISEvaluator
from detectron2.evaluation.panoptic_evaluation import COCOPanopticEvaluator
from detectron2.evaluation.sem_seg_evaluation import SemSegEvaluator
from detectron2.evaluation.testing import flatten_results_dict, print_csv_format, verify_results

__all__ = [
    "COCOEvaluator",
    "COCOPanopticEvaluator",
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
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "PascalVOCDetectionEvaluator",
    "RotatedCOCOEvaluator",
)


def __getattr__(name: str) -> Any:
    """Scripts import all evaluators at once, so those left out complain when one is made."""
    if name not in _LEFT_OUT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise ImportError(
            f"{name} is not part of detectron2-pure; install the full detectron2 "
            f"({FULL_PACKAGE}) to use it."
        )

    return type(name, (DatasetEvaluator,), {"__init__": refuse, "__module__": __name__})
