"""LVIS metrics for boxes and masks (Gupta et al., 2019)."""

from __future__ import annotations

import heapq
import logging
from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from detectron2.evaluation.coco_evaluation import COCOEvaluator
from detectron2.evaluation.coco_max_dets import percent
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO

__all__ = ["LVISEvaluator"]

logger = logging.getLogger(__name__)

_FREQUENCIES = {"APr": "r", "APc": "c", "APf": "f"}
_FAR = 10**6  # pixels; no box reaches that far


class LVISEvaluator(COCOEvaluator):
    """Average precision where images are not annotated with all categories.

    An image says which categories were looked for and not found ("neg_category_ids"), and of which
    not all objects are annotated ("not_exhaustive_category_ids"). Predictions of categories that
    are neither annotated nor negative in the image don't count; nor do those of categories that are
    not annotated exhaustively, unless they match an object.

    Inputs and outputs are those of ``COCOEvaluator``, whose evaluation this uses.
    """

    _results_file = "lvis_instances_results.json"

    def __init__(
        self,
        dataset_name: str | Sequence[str],
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset whose metadata has ``json_file``, in LVIS's format.
            tasks: among "bbox" and "segm"; by default what the predictions have.
            distributed: whether to collect the predictions of all processes on the main one.
            output_dir: where to write ``lvis_instances_results.json`` and
                ``instances_predictions.pth``; by default nothing is written.
            max_dets_per_image: how many detections per image count, over all categories; 300 by
                default, as in LVIS.
        """
        self._limit = max_dets_per_image or 300
        super().__init__(
            dataset_name, tasks, distributed, output_dir, max_dets_per_image=self._limit
        )

    def _load_ground_truth(self, allow_cached: bool) -> COCO:
        coco = super()._load_ground_truth(allow_cached)
        self._judged: defaultdict[Any, set[int]] = defaultdict(set)
        for image in coco.dataset["images"]:
            self._judged[image["id"]].update(image.get("neg_category_ids", ()))
        for annotation in coco.dataset.get("annotations", ()):
            self._judged[annotation["image_id"]].add(annotation["category_id"])
        if "annotations" in coco.dataset:
            coco.dataset["annotations"] += _excuses(coco.dataset)
            coco.createIndex()
        return coco

    def _results_that_count(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The best of each image, without those of categories that nobody looked for."""
        by_image: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
        for result in results:
            by_image[result["image_id"]].append(result)
        return [
            result
            for image_id, rows in by_image.items()
            for result in heapq.nlargest(self._limit, rows, key=itemgetter("score"))
            if result["category_id"] in self._judged.get(image_id, {result["category_id"]})
        ]

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """COCO's metrics, and those of rare, common and frequent categories."""
        results = super()._derive_coco_results(coco_eval, iou_type)
        categories = [c for _, c in sorted(self._coco_api.cats.items())]
        for name, frequency in _FREQUENCIES.items():
            group = [i for i, c in enumerate(categories) if c.get("frequency") == frequency]
            results[name] = float("nan")
            if coco_eval is not None:
                precision = coco_eval.eval["precision"][:, :, group, 0, -1]
                defined = precision[precision > -1]
                results[name] = percent(defined.mean() if defined.size else -1)
        logger.info(f"LVIS results for {iou_type}: \n" + create_small_table(results))
        return results


def _excuses(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Crowds, as COCO calls them, that cover images with categories that are not exhaustive.

    COCO ignores what matches nothing but a crowd, which is what LVIS asks for.
    """
    next_id = max((a["id"] for a in dataset["annotations"]), default=0) + 1
    crowds: list[dict[str, Any]] = []
    for image in dataset["images"]:
        height, width = image["height"], image["width"]
        for category in image.get("not_exhaustive_category_ids", ()):
            crowds.append(
                {
                    "id": next_id + len(crowds),
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [-_FAR, -_FAR, 2 * _FAR, 2 * _FAR],
                    "segmentation": {"size": [height, width], "counts": [0, height * width]},
                    "area": height * width,
                    "iscrowd": 1,
                }
            )
    return crowds
