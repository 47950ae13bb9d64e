"""COCO metrics for boxes, masks and keypoints."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict, convert_to_coco_json
from detectron2.evaluation.coco_ground_truth import coco_from_dict, coco_from_json
from detectron2.evaluation.coco_max_dets import (
    COCOevalMaxDets,
    format_summary,
    per_class_ap,
    percent,
    table_of_three,
)
from detectron2.evaluation.coco_results import instances_to_coco_json
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.utils import comm
from detectron2.utils.atomic_write import atomic_open
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

logger = logging.getLogger(__name__)

_METRICS = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}
_RESULT_KEYS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


class COCOEvaluator(DatasetEvaluator):
    """Average precision and recall as COCO defines them, also for datasets that are not COCO's.

    The model's outputs are dicts with ``"instances"``: Instances with ``pred_boxes``, ``scores``,
    ``pred_classes`` and, for the other tasks, ``pred_masks`` or ``pred_keypoints``, in the
    coordinates of the original image.
    """

    _results_file = "coco_instances_results.json"

    def __init__(
        self,
        dataset_name: str | Sequence[str],
        tasks: Sequence[str] | CfgNode | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset. If its metadata has no ``json_file``, its dicts are
                converted to COCO's format.
            tasks: among "bbox", "segm" and "keypoints"; by default what the predictions have.
                Old scripts give their yacs config here; its widths of the keypoints are used.
            distributed: whether to collect the predictions of all processes on the main one;
                otherwise each evaluates its own.
            output_dir: where to write ``coco_instances_results.json`` (COCO's result format) and
                ``instances_predictions.pth``; by default nothing is written.
            max_dets_per_image: how many detections per image count, those of the highest scores;
                100 by default, as in COCO.
            use_fast_impl: use faster-coco-eval if it is installed; the numbers are the same.
            kpt_oks_sigmas: widths of the keypoints, for other keypoints than COCO's.
            allow_cached_coco: use a converted file that is already in ``output_dir``.
        """
        if isinstance(tasks, CfgNode):
            kpt_oks_sigmas, tasks = tasks.TEST.KEYPOINT_OKS_SIGMAS, None
        unknown = set(tasks or ()) - set(_METRICS)
        if unknown:
            raise ValueError(f"Unknown tasks {sorted(unknown)}; choose from {list(_METRICS)}.")
        self._tasks = tuple(tasks) if tasks is not None else None
        self._distributed = distributed
        self._output_dir = output_dir
        limit = max_dets_per_image or 100
        self._max_dets_per_image = [1, min(10, limit), limit]
        self._use_fast_impl = use_fast_impl
        self._logger = logger
        self._kpt_oks_sigmas = list(kpt_oks_sigmas)
        self._cpu_device = torch.device("cpu")
        self._dataset_name = _single_name(dataset_name)
        self._metadata = MetadataCatalog.get(self._dataset_name)
        self._coco_api = self._load_ground_truth(allow_cached_coco)
        self._do_evaluation = "annotations" in self._coco_api.dataset
        self.reset()

    def _load_ground_truth(self, allow_cached: bool) -> COCO:
        name = self._dataset_name
        json_file = self._metadata.get("json_file")
        if json_file:
            return coco_from_json(json_file)
        logger.info(f"Converting {name!r} to COCO format ...")
        if not self._output_dir:
            return coco_from_dict(convert_to_coco_dict(name), f"dataset {name!r}")
        path = os.path.join(self._output_dir, f"{name}_coco_format.json")
        convert_to_coco_json(name, path, allow_cached=allow_cached)
        return coco_from_json(path)

    def reset(self) -> None:
        self._predictions: list[dict[str, Any]] = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in one batch.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``instances``, in the same order.
        """
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                image_id = image["image_id"]
                instances = output["instances"].to(self._cpu_device)
                found = instances_to_coco_json(instances, image_id)
                self._predictions.append({"image_id": image_id, "instances": found})

    def evaluate(self, img_ids: Sequence[Any] | None = None) -> dict[str, dict[str, float]]:
        """Compute the metrics of what was processed since the last reset.

        Args:
            img_ids: evaluate on these images only; by default on all of the annotation file.

        Returns:
            ``{task: {"AP": ..., "AP50": ..., "AP-<class>": ...}}`` in percent, NaN where undefined.
            Empty without predictions, and in processes other than the main one.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return {}
            predictions = list(itertools.chain.from_iterable(gathered))
        if not predictions:
            logger.warning("[COCOEvaluator] Did not receive valid predictions.")
            return {}
        if self._output_dir:
            path = os.path.join(self._output_dir, "instances_predictions.pth")
            with atomic_open(path, "wb") as f:
                torch.save(predictions, f)
        self._results: dict[str, dict[str, float]] = OrderedDict()
        self._eval_predictions(predictions, img_ids)
        return copy.deepcopy(self._results)

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: Sequence[Any] | None = None
    ) -> None:
        """Fill ``_results``."""
        results = [dict(result) for p in predictions for result in p["instances"]]
        tasks = self._tasks or self._tasks_from_predictions(results)
        self._to_dataset_categories(results)
        if self._output_dir:
            path = os.path.join(self._output_dir, self._results_file)
            logger.info(f"Saving results to {path}")
            with atomic_open(path) as f:
                f.write(json.dumps(results))
        if not self._do_evaluation:
            logger.info("Annotations are not available for evaluation.")
            return
        self._warn_of_unseen_images(predictions, img_ids)
        results = self._results_that_count(results)
        cocoeval_fn = COCOeval_opt if self._use_fast_impl else COCOevalMaxDets
        logger.info(f"Evaluating predictions with {cocoeval_fn.__name__} ...")
        for task in tasks:
            coco_eval = None
            if results:
                coco_eval = _evaluate_predictions_on_coco(
                    self._coco_api,
                    results,
                    task,
                    kpt_oks_sigmas=self._kpt_oks_sigmas,
                    cocoeval_fn=cocoeval_fn,
                    img_ids=img_ids,
                    max_dets_per_image=self._max_dets_per_image,
                )
            names = self._names_in_category_order()
            self._results[task] = self._derive_coco_results(coco_eval, task, names)

    def _results_that_count(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All of them; for subclasses that evaluate only some."""
        return results

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> tuple[str, ...]:
        """Boxes, and what else results in COCO's format have."""
        return tuple(
            task
            for task, key in _RESULT_KEYS.items()
            if task == "bbox" or any(key in p for p in predictions)
        )

    def _category_to_class(self) -> dict[int, int]:
        """Class numbers of category ids: those of the metadata or else, if the dataset was not
        loaded yet, what loading it will put there.
        """
        id_map = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if id_map is None:
            id_map = {c: i for i, c in enumerate(sorted(self._coco_api.getCatIds()))}
        return id_map

    def _names_in_category_order(self) -> list[str]:
        """Names of the categories by rising id, as the evaluation has them."""
        names = self._metadata.get("thing_classes")
        if names is None:
            return [self._coco_api.cats[c]["name"] for c in sorted(self._coco_api.getCatIds())]
        order = [i for _, i in sorted(self._category_to_class().items())]
        return [names[i] for i in order] if len(order) == len(names) else names

    def _to_dataset_categories(self, results: list[dict[str, Any]]) -> None:
        """Replace the class numbers of the model by the category ids of the dataset."""
        id_map = self._category_to_class()
        num_classes = len(id_map)
        assert sorted(id_map.values()) == list(range(num_classes)), (
            f"thing_dataset_id_to_contiguous_id of {self._dataset_name!r} must map to 0, 1, ..., "
            f"{num_classes - 1}, but is {id_map}."
        )
        to_dataset = {contiguous: category for category, contiguous in id_map.items()}
        for result in results:
            category = result["category_id"]
            assert category in to_dataset, (
                f"A prediction has class={category}, but the dataset {self._dataset_name!r} only "
                f"has {num_classes} classes and predicted class id should be in "
                f"[0, {num_classes - 1}]."
            )
            result["category_id"] = to_dataset[category]

    def _warn_of_unseen_images(
        self, predictions: list[dict[str, Any]], img_ids: Sequence[Any] | None
    ) -> None:
        expected = set(self._coco_api.getImgIds() if img_ids is None else img_ids)
        unseen = expected - {p["image_id"] for p in predictions}
        if unseen:
            logger.warning(
                f"{len(unseen)} of {len(expected)} images of {self._dataset_name!r} were not "
                f"processed (for example {next(iter(unseen))}); their objects count as missed."
            )

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Metrics in percent, with one per class; NaN if there is no evaluation."""
        metrics = _METRICS[iou_type]
        if coco_eval is None:
            logger.warning("No predictions from the model!")
            return dict.fromkeys(metrics, float("nan"))
        values = [percent(value) for value in coco_eval.stats]
        results = dict(zip(metrics, values, strict=False))
        logger.info(f"Evaluation results for {iou_type}: \n" + create_small_table(results))
        if not np.isfinite(list(results.values())).all():
            logger.info("Some metrics cannot be computed and is shown as NaN.")
        if class_names is not None and len(class_names) > 1:
            per_class = per_class_ap(coco_eval, class_names)
            logger.info(f"Per-category {iou_type} AP: \n" + table_of_three(per_class))
            results.update((f"AP-{name}", ap) for name, ap in per_class)
        return results


def _single_name(dataset_name: str | Sequence[str]) -> str:
    """The dataset's name; configs may hold it in a list of one, as the loaders do."""
    names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
    if len(names) != 1:
        raise ValueError(f"COCOEvaluator evaluates one dataset at a time, not {names}.")
    return names[0]


def _evaluate_predictions_on_coco(
    coco_gt: COCO,
    coco_results: list[dict[str, Any]],
    iou_type: str,
    kpt_oks_sigmas: Sequence[float] | None = None,
    cocoeval_fn: Any = COCOeval_opt,
    img_ids: Sequence[Any] | None = None,
    max_dets_per_image: Sequence[int] | None = None,
    use_fast_impl: bool = True,
) -> Any:
    """Evaluate results and log COCO's summary.

    Args:
        coco_gt: the annotations.
        coco_results: a non-empty list of dicts in COCO's result format; not modified.
        iou_type: "bbox", "segm" or "keypoints".
        kpt_oks_sigmas: widths of the keypoints; COCO's by default.
        cocoeval_fn: the class that evaluates.
        img_ids: evaluate on these images only.
        max_dets_per_image: three numbers of detections per image to report recall at; the largest
            holds for everything else. ``[1, 10, 100]`` by default.
        use_fast_impl: False for pycocotools; an earlier name of the choice of ``cocoeval_fn``.

    Returns:
        the summarized evaluation.
    """
    assert len(coco_results) > 0
    _check_fit(coco_gt, coco_results, iou_type)
    max_dets = [1, 10, 100] if max_dets_per_image is None else list(max_dets_per_image)
    assert len(max_dets) == 3, f"max_dets_per_image needs three numbers, not {max_dets}."
    results = [dict(result) for result in coco_results]
    if iou_type == "segm":
        for result in results:
            # pycocotools would take the area of the box for that of the mask
            result.pop("bbox", None)
    if (max_dets[-1] != 100 and cocoeval_fn is COCOeval) or (
        cocoeval_fn is COCOeval_opt and not (use_fast_impl and _suits_fast_impl(coco_gt, iou_type))
    ):
        cocoeval_fn = COCOevalMaxDets
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = cocoeval_fn(coco_gt, coco_gt.loadRes(results), iou_type)
        if iou_type == "keypoints":
            _set_keypoint_sigmas(coco_eval, results, kpt_oks_sigmas)
        else:
            coco_eval.params.maxDets = max_dets
        if img_ids is not None:
            coco_eval.params.imgIds = list(img_ids)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    logger.info(f"COCO summary for {iou_type}:\n" + format_summary(coco_eval))
    return coco_eval


def _suits_fast_impl(coco_gt: COCO, iou_type: str) -> bool:
    """Whether faster-coco-eval can do it: it takes image ids for floats, and wants annotations of
    its own class for key points.
    """
    plain_ids = all(isinstance(i, int) and abs(i) <= 2**53 for i in coco_gt.imgs)
    return plain_ids and iou_type != "keypoints"


def _check_fit(coco_gt: COCO, coco_results: list[dict[str, Any]], iou_type: str) -> None:
    unknown = {result["image_id"] for result in coco_results} - set(coco_gt.imgs)
    assert not unknown, (
        f"Results do not correspond to the annotations: {len(unknown)} image ids, such as "
        f"{next(iter(unknown))!r}, are not in the annotation file."
    )
    key = _RESULT_KEYS[iou_type]
    if not all(key in result for result in coco_results):
        raise ValueError(f"Predictions have no {key!r}, so {iou_type!r} cannot be evaluated.")
    if iou_type == "segm":
        without = [a["id"] for a in coco_gt.dataset["annotations"] if not a.get("segmentation")]
        if without:
            raise ValueError(
                f"{len(without)} annotations (such as id {without[0]}) have no segmentation, so "
                "masks cannot be evaluated; give the evaluator tasks=('bbox',)."
            )


def _set_keypoint_sigmas(
    coco_eval: Any, results: list[dict[str, Any]], sigmas: Sequence[float] | None
) -> None:
    if sigmas:
        coco_eval.params.kpt_oks_sigmas = np.array(sigmas)
    num_keypoints = len(results[0]["keypoints"]) // 3
    num_sigmas = len(coco_eval.params.kpt_oks_sigmas)
    assert num_keypoints == num_sigmas, (
        f"[COCOEvaluator] Predictions have {num_keypoints} keypoints, but there are {num_sigmas} "
        "OKS sigmas; give the evaluator kpt_oks_sigmas of that length."
    )
