"""Panoptic quality (Kirillov et al., 2019)."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.datasets._coco_file import read_json
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.atomic_write import atomic_open
from detectron2.utils.file_io import PathManager
from PIL import Image
from tabulate import tabulate

__all__ = ["COCOPanopticEvaluator"]

logger = logging.getLogger(__name__)

_VOID = 0  # id of pixels that belong to no segment
_IOU, _TP, _FP, _FN = range(4)
_Counts = dict[int, np.ndarray]  # category -> (4,): sum of IoUs, true, false positives, misses


class COCOPanopticEvaluator(DatasetEvaluator):
    """Panoptic, segmentation and recognition quality on a dataset in COCO's panoptic format.

    The model's outputs are dicts with ``"panoptic_seg"``: the ids of the segments, (H, W) integers
    at the size of the annotated map, 0 for none; and a list of dicts with ``id``, ``category_id``
    and ``isthing`` (without it the category is the dataset's, not the contiguous one). Instead of
    the list there may be None; then an id is ``category * label_divisor + number``, -1 for none.

    Images are compared one by one as they come, so nothing but counts is kept.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            dataset_name: a registered dataset whose metadata has ``panoptic_json``,
                ``panoptic_root`` and the maps of ids to contiguous ids.
            output_dir: where to write ``predictions.json``, the predicted segments without their
                pixels; by default nothing is written.

        Raises:
            ValueError: the json has no annotations or no categories.
        """
        self._dataset_name = dataset_name
        self._metadata = meta = MetadataCatalog.get(dataset_name)
        self._to_dataset_id = {
            kind: {v: k for k, v in getattr(meta, f"{kind}_dataset_id_to_contiguous_id").items()}
            for kind in ("thing", "stuff")
        }
        content = read_json(meta.panoptic_json)
        for key in ("annotations", "categories"):
            if not content.get(key):
                raise ValueError(f"'{meta.panoptic_json}' has no '{key}' to evaluate with.")
        self._truth = {a["image_id"]: a for a in content["annotations"]}
        self._is_thing = {c["id"]: bool(c["isthing"]) for c in content["categories"]}
        self._output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        self._counts: _Counts = defaultdict(lambda: np.zeros(4))
        self._predictions: list[dict[str, Any]] = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in one batch of inputs with ``image_id`` and outputs with ``panoptic_seg``."""
        for image, output in zip(inputs, outputs, strict=True):
            ids, segments = output["panoptic_seg"]
            ids = ids.cpu().numpy().astype(np.int64)
            if segments is None:
                ids, segments = self._decode(ids)
            segments = [self._in_dataset_ids(segment) for segment in segments]
            annotation = self._annotation(image["image_id"])
            truth = _read_ids(os.path.join(self._metadata.panoptic_root, annotation["file_name"]))
            if truth.shape != ids.shape:
                raise ValueError(
                    f"The prediction for image {image['image_id']} has size {ids.shape}, its "
                    f"annotation {truth.shape}."
                )
            _add(self._counts, _compare(truth, annotation["segments_info"], ids, segments))
            entry = {"image_id": image["image_id"], "file_name": annotation["file_name"]}
            self._predictions.append({**entry, "segments_info": segments})

    def _annotation(self, image_id: Any) -> dict[str, Any]:
        if image_id not in self._truth:
            raise ValueError(f"'{self._metadata.panoptic_json}' has no image with id {image_id!r}.")
        return self._truth[image_id]

    def _decode(self, ids: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Ids from 0 on, and the segments, of a map that has the categories in its ids."""
        things = set(self._to_dataset_id["thing"])
        segments = []
        for label in np.unique(ids[ids != -1]).tolist():
            category = label // self._metadata.label_divisor
            segments.append(
                {"id": label + 1, "category_id": category, "isthing": category in things}
            )
        return ids + 1, segments

    def _in_dataset_ids(self, segment: Mapping[str, Any]) -> dict[str, Any]:
        segment = dict(segment)
        isthing = segment.pop("isthing", None)
        if isthing is not None:
            ids = self._to_dataset_id["thing" if isthing else "stuff"]
            segment["category_id"] = ids[segment["category_id"]]
        return segment

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the metrics of what was processed since the last reset.

        Returns:
            ``{"panoptic_seg": {"PQ", "SQ", "RQ", "PQ_th", ..., "RQ_st"}}`` in percent, over all
            categories, things and stuff, NaN where there are none; None outside of the main
            process.
        """
        comm.synchronize()
        gathered = comm.gather((dict(self._counts), self._predictions), dst=0)
        if not comm.is_main_process():
            return None
        total: _Counts = defaultdict(lambda: np.zeros(4))
        for counts, _ in gathered:
            _add(total, counts)
        predictions = [prediction for _, part in gathered for prediction in part]
        self._miss_unseen(total, {p["image_id"] for p in predictions})
        if self._output_dir:
            with atomic_open(os.path.join(self._output_dir, "predictions.json")) as f:
                f.write(
                    json.dumps({"annotations": predictions}, default=lambda number: number.item())
                )
        rows = {
            "All": list(self._is_thing),
            "Things": [c for c, isthing in self._is_thing.items() if isthing],
            "Stuff": [c for c, isthing in self._is_thing.items() if not isthing],
        }
        table = [(name, *_qualities(total, group), len(group)) for name, group in rows.items()]
        headers = ["", "PQ", "SQ", "RQ", "#categories"]
        text = tabulate(table, headers=headers, tablefmt="pipe", floatfmt=".3f", stralign="center")
        logger.info("Panoptic Evaluation Results:\n" + text)
        return {
            "panoptic_seg": {
                metric + suffix: values[i]
                for suffix, (_, *values) in zip(("", "_th", "_st"), table, strict=True)
                for i, metric in enumerate(("PQ", "SQ", "RQ"))
            }
        }

    def _miss_unseen(self, counts: _Counts, seen: set[Any]) -> None:
        """Count the segments of images that were not processed as missed."""
        unseen = self._truth.keys() - seen
        if unseen:
            logger.warning(
                f"{len(unseen)} of {len(self._truth)} images of {self._dataset_name!r} were not "
                f"processed (for example {next(iter(unseen))}); their segments count as missed."
            )
        for image_id in unseen:
            for segment in self._truth[image_id]["segments_info"]:
                if not segment.get("iscrowd"):
                    counts[segment["category_id"]][_FN] += 1


def _read_ids(path: str) -> np.ndarray:
    """(H, W) ids from a PNG whose red is the lowest byte, blue the highest."""
    with PathManager.open(path, "rb") as f:
        rgb = np.asarray(Image.open(f).convert("RGB"), dtype=np.int64)
    return rgb @ np.array([1, 256, 256**2])


def _compare(
    truth: np.ndarray,
    truth_segments: Sequence[Mapping[str, Any]],
    ids: np.ndarray,
    segments: Sequence[Mapping[str, Any]],
) -> _Counts:
    """Match the segments of one image, which are those that overlap by more than half.

    Args:
        truth, ids: (H, W) ids of annotated and predicted segments.
        truth_segments, segments: dicts with id and category_id.

    Raises:
        ValueError: an id that ``segments`` lack.
    """
    overlaps, pixels = np.unique(np.stack([truth, ids]).reshape(2, -1), axis=1, return_counts=True)
    inter = Counter(dict(zip(map(tuple, overlaps.T.tolist()), pixels.tolist(), strict=True)))
    truth_area, area = Counter[int](), Counter[int]()
    for (t, p), count in inter.items():
        truth_area[t] += count
        area[p] += count
    category_of = {s["id"]: s["category_id"] for s in segments}
    unknown = area.keys() - category_of.keys() - {_VOID}
    if unknown:
        raise ValueError(f"Predicted segments {sorted(unknown)[:5]} are not in segments_info.")
    counts: _Counts = defaultdict(lambda: np.zeros(4))
    crowds = {s["category_id"]: s["id"] for s in truth_segments if s.get("iscrowd")}
    missed = {s["id"]: s["category_id"] for s in truth_segments if not s.get("iscrowd")}
    wrong = {p: c for p, c in category_of.items() if p in area}
    for (t, p), count in inter.items():
        if t in missed and p in wrong and missed[t] == wrong[p]:
            iou = count / (truth_area[t] + area[p] - count - inter[_VOID, p])
            if iou > 0.5:  # so there is at most one for each
                counts[missed.pop(t)] += (iou, 1, 0, 0)
                del wrong[p]
    for category in missed.values():
        counts[category][_FN] += 1
    for p, category in wrong.items():
        excused = inter[_VOID, p]
        if category in crowds:
            excused += inter[crowds[category], p]
        if excused <= 0.5 * area[p]:
            counts[category][_FP] += 1
    return counts


def _add(total: _Counts, counts: _Counts) -> None:
    for category, values in counts.items():
        total[category] = total[category] + values


def _qualities(counts: _Counts, categories: Sequence[int]) -> tuple[float, float, float]:
    """Panoptic, segmentation and recognition quality in percent, averaged over categories."""
    values = np.array([counts[c] for c in categories if c in counts]).reshape(-1, 4)
    if not len(values):
        return (float("nan"),) * 3
    size = values[:, _TP] + (values[:, _FP] + values[:, _FN]) / 2
    sq = values[:, _IOU] / np.maximum(values[:, _TP], 1)
    pq, rq = values[:, _IOU] / size, values[:, _TP] / size
    return (100 * float(pq.mean()), 100 * float(sq.mean()), 100 * float(rq.mean()))
