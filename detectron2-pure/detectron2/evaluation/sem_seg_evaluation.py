"""Metrics for semantic segmentation."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.atomic_write import atomic_open
from detectron2.utils.file_io import PathManager
from PIL import Image

logger = logging.getLogger(__name__)


def load_image_into_numpy_array(filename: str, copy: bool = False, dtype: Any = None) -> np.ndarray:
    """Read a label map as an array (H, W), writable if ``copy`` is set."""
    with PathManager.open(filename, "rb") as f:
        array = np.asarray(Image.open(f), dtype=dtype)
    return array.copy() if copy else array


class SemSegEvaluator(DatasetEvaluator):
    """Intersection over union and accuracy, from one confusion matrix over all pixels.

    The model's outputs are dicts with ``"sem_seg"``, scores (C, H, W) at the size of the annotated
    map. Pixels that are annotated with the ignore label count nowhere.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset whose dicts have ``sem_seg_file_name`` and whose
                metadata has ``stuff_classes`` and ``ignore_label``.
            distributed: whether to add up the counts of all processes.
            output_dir: where to write ``sem_seg_predictions.json`` (COCO's format) and
                ``sem_seg_evaluation.pth``; by default nothing is written.
            sem_seg_loading_fn: reads a label map, called as ``fn(path, dtype=int)``.
            num_classes: by default the number of ``stuff_classes``; must agree with it.
            ignore_label: by default that of the metadata.
        """
        meta = MetadataCatalog.get(dataset_name)
        self._logger = logger
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._cpu_device = torch.device("cpu")
        self._class_names: Sequence[str] = meta.stuff_classes
        self._num_classes = len(self._class_names)
        self._ignore_label = meta.get("ignore_label") if ignore_label is None else ignore_label
        assert num_classes in (None, self._num_classes), (
            f"num_classes={num_classes}, but dataset {dataset_name!r} has {self._num_classes}."
        )
        ids = meta.get("stuff_dataset_id_to_contiguous_id") or {}
        self._contiguous_id_to_dataset_id = {v: k for k, v in ids.items()}
        self.input_file_to_gt_file = {
            d["file_name"]: d["sem_seg_file_name"] for d in DatasetCatalog.get(dataset_name)
        }
        self.sem_seg_loading_fn = sem_seg_loading_fn
        self.reset()

    def reset(self) -> None:
        # rows: predictions, columns: annotations; the last ones are for ignored pixels
        self._conf_matrix = np.zeros((self._num_classes + 1,) * 2, dtype=np.int64)
        self._predictions: list[dict[str, Any]] = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in one batch of inputs with ``file_name`` and outputs with ``sem_seg``."""
        for image, output in zip(inputs, outputs, strict=True):
            prediction = output["sem_seg"].argmax(dim=0).to(self._cpu_device).numpy()
            truth = self._load_truth(image["file_name"])
            if prediction.shape != truth.shape:
                raise ValueError(
                    f"The prediction for {image['file_name']} has size {prediction.shape}, its "
                    f"annotation {truth.shape}."
                )
            index = prediction.astype(np.int64) * (self._num_classes + 1) + truth
            self._conf_matrix += np.bincount(
                index.reshape(-1), minlength=self._conf_matrix.size
            ).reshape(self._conf_matrix.shape)
            if self._output_dir:
                self._predictions.extend(self.encode_json_sem_seg(prediction, image["file_name"]))

    def _load_truth(self, file_name: str) -> np.ndarray:
        """Annotated classes; ignored pixels have the number of classes."""
        path = self.input_file_to_gt_file[file_name]
        truth = np.array(self.sem_seg_loading_fn(path, dtype=int))
        truth[truth == self._ignore_label] = self._num_classes
        if truth.min() < 0 or truth.max() > self._num_classes:
            raise ValueError(
                f"{path} has the label {truth.max()}; {self._dataset_name!r} has "
                f"{self._num_classes} classes and the ignore label {self._ignore_label}."
            )
        return truth

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the metrics of what was processed since the last reset.

        Returns:
            ``{"sem_seg": {"mIoU", "fwIoU", "IoU-<class>", "mACC", "pACC", "ACC-<class>"}}`` in
            percent, NaN for classes without annotated pixels; None outside of the main process.
        """
        matrix, predictions = self._conf_matrix, self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather((matrix, predictions), dst=0)
            if not comm.is_main_process():
                return None
            matrix = np.sum([part[0] for part in gathered], axis=0)
            predictions = list(itertools.chain.from_iterable(part[1] for part in gathered))
        metrics = self._metrics(matrix[:-1, :-1])
        if self._output_dir:
            with atomic_open(os.path.join(self._output_dir, "sem_seg_predictions.json")) as f:
                f.write(json.dumps(predictions))
            with atomic_open(os.path.join(self._output_dir, "sem_seg_evaluation.pth"), "wb") as f:
                torch.save(metrics, f)
        logger.info(f"sem_seg: {metrics}")
        return {"sem_seg": metrics}

    def _metrics(self, matrix: np.ndarray) -> dict[str, float]:
        """Metrics of a confusion matrix (predicted, annotated) without ignored pixels."""
        hits = matrix.diagonal().astype(np.float64)
        annotated, predicted = matrix.sum(axis=0), matrix.sum(axis=1)
        union = annotated + predicted - hits
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = np.where(annotated > 0, 100 * hits / annotated, np.nan)
            iou = np.where(annotated > 0, 100 * hits / union, np.nan)
            weights = annotated / annotated.sum()
            metrics = {
                "mIoU": _nan_mean(iou),
                "fwIoU": float(np.nansum(iou * weights)),
                **{f"IoU-{n}": float(v) for n, v in zip(self._class_names, iou, strict=True)},
                "mACC": _nan_mean(accuracy),
                "pACC": float(100 * hits.sum() / annotated.sum()),
                **{f"ACC-{n}": float(v) for n, v in zip(self._class_names, accuracy, strict=True)},
            }
        return metrics

    def encode_json_sem_seg(
        self, sem_seg: np.ndarray, input_file_name: str
    ) -> list[dict[str, Any]]:
        """A label map as RLE masks in COCO's stuff format."""
        rows = []
        for label in np.unique(sem_seg).tolist():
            rle = mask_util.encode(np.asfortranarray(sem_seg == label, dtype=np.uint8))
            rle["counts"] = rle["counts"].decode("utf-8")
            category = self._contiguous_id_to_dataset_id.get(label, label)
            rows.append(
                {"file_name": input_file_name, "category_id": category, "segmentation": rle}
            )
        return rows


def _nan_mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
