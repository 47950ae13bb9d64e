"""Records of registered datasets: collecting, filtering and counting them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.checkpoint.state_dict_file import read_pickle
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n
from tabulate import tabulate
from termcolor import colored
from torch.utils.data import ConcatDataset, Dataset

__all__ = [
    "filter_images_with_few_keypoints",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
]

logger = logging.getLogger(__name__)

Records = list[dict[str, Any]]


def filter_images_with_only_crowd_annotations(dataset_dicts: Records) -> Records:
    """Leave out images that have no object, or only objects with ``iscrowd``."""
    kept = [
        record
        for record in dataset_dicts
        if any(obj.get("iscrowd", 0) == 0 for obj in record["annotations"])
    ]
    logger.info(
        f"Removed {len(dataset_dicts) - len(kept)} images with no usable annotations. "
        f"{len(kept)} images left."
    )
    return kept


def filter_images_with_few_keypoints(
    dataset_dicts: Records, min_keypoints_per_image: int
) -> Records:
    """Leave out images with fewer labeled key points (over all objects) than that."""

    def labeled(record: dict[str, Any]) -> int:
        objects = (obj.get("keypoints") or () for obj in record["annotations"])
        return sum(int(v > 0) for keypoints in objects for v in keypoints[2::3])

    kept = [record for record in dataset_dicts if labeled(record) >= min_keypoints_per_image]
    logger.info(
        f"Removed {len(dataset_dicts) - len(kept)} images with fewer than "
        f"{min_keypoints_per_image} keypoints."
    )
    return kept


def print_instances_class_histogram(dataset_dicts: Records, class_names: Sequence[str]) -> None:
    """Log a table of how many objects each class has, crowds left out.

    Raises:
        AssertionError: a category_id is not in 0 ... len(class_names) - 1.
    """
    classes = [
        obj["category_id"]
        for record in dataset_dicts
        for obj in record["annotations"]
        if not obj.get("iscrowd", 0)
    ]
    ids = np.asarray(classes, dtype=np.int64)
    if len(ids):
        assert ids.min() >= 0, f"Got an invalid category_id={ids.min()}"
        assert ids.max() < len(class_names), (
            f"Got an invalid category_id={ids.max()} for a dataset of {len(class_names)} classes"
        )
    counts = np.bincount(ids, minlength=len(class_names)).tolist()
    cells: list[Any] = []
    for name, count in zip(class_names, counts, strict=True):
        cells += [name if len(name) <= 13 else name[:11] + "..", count]
    columns = min(6, len(cells))
    if len(class_names) > 1:
        cells += [None] * (-len(cells) % 6) + ["total", sum(counts)]
    rows = list(itertools.zip_longest(*[cells[i::columns] for i in range(columns)]))
    headers = ["category", "#instances"] * (columns // 2)
    table = tabulate(rows, headers=headers, tablefmt="pipe", numalign="left", stralign="center")
    log_first_n(
        logging.INFO,
        f"Distribution of instances among all {len(class_names)} categories:\n"
        + colored(table, "cyan"),
        name=__name__,
        key="message",
    )


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> Any:
    """The records of one or several registered datasets.

    Args:
        names: one name or several.
        filter_empty: leave out images without objects that count.
        min_keypoints: leave out images with fewer labeled key points.
        proposal_files: one file of object proposals per dataset.
        check_consistency: datasets that have ``thing_classes`` must have the same.

    Returns:
        list[dict]; or a torch Dataset, if that is what the names stand for.

    Raises:
        KeyError: a name is not registered.
        AssertionError: no names, a dataset is empty, nothing is left, or classes differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    assert names, "No dataset names are given."
    datasets = [DatasetCatalog.get(name) for name in names]
    if isinstance(datasets[0], Dataset):
        return ConcatDataset(datasets) if len(datasets) > 1 else datasets[0]
    for name, records in zip(names, datasets, strict=True):
        assert len(records), f"Dataset '{name}' is empty!"
    if proposal_files is not None:
        assert len(names) == len(proposal_files), (
            f"{len(names)} datasets need as many proposal files, not {len(proposal_files)}."
        )
        datasets = [
            load_proposals_into_dataset(records, file)
            for records, file in zip(datasets, proposal_files, strict=True)
        ]
    records = list(itertools.chain.from_iterable(datasets))
    has_instances = "annotations" in records[0]
    if filter_empty and has_instances:
        records = filter_images_with_only_crowd_annotations(records)
    if min_keypoints > 0 and has_instances:
        records = filter_images_with_few_keypoints(records, min_keypoints)
    named = [name for name in names if MetadataCatalog.get(name).get("thing_classes") is not None]
    if check_consistency and has_instances and named:
        check_metadata_consistency("thing_classes", named)
        print_instances_class_histogram(records, MetadataCatalog.get(named[0]).thing_classes)
    assert records, (
        f"No valid data found in {', '.join(names)}: no image has an object that counts. "
        "filter_empty=False keeps images without objects."
    )
    return records


def load_proposals_into_dataset(dataset_dicts: Records, proposal_file: str) -> Records:
    """Add precomputed object proposals to the records with the same image_id, in place.

    Args:
        dataset_dicts: records with image_id.
        proposal_file: a pickled dictionary with "ids" (or "indexes"), "boxes",
            "objectness_logits" (or "scores"), lists of one entry per image, and "bbox_mode".

    Returns:
        ``dataset_dicts``, where records have proposal_boxes, by descending logit,
        proposal_objectness_logits and proposal_bbox_mode.

    Raises:
        ValueError: the file has anything but plain data and arrays in it.
    """
    logger.info(f"Loading proposals from: {proposal_file}")
    data = read_pickle(PathManager.get_local_path(proposal_file))
    ids = data["ids"] if "ids" in data else data["indexes"]
    logits = data["objectness_logits"] if "objectness_logits" in data else data["scores"]
    row_of = {str(image_id): row for row, image_id in enumerate(ids)}
    mode = BoxMode(data.get("bbox_mode", BoxMode.XYXY_ABS))
    for record in dataset_dicts:
        row = row_of.get(str(record["image_id"]))
        if row is not None:
            order = np.argsort(-np.asarray(logits[row]))
            record["proposal_boxes"] = np.asarray(data["boxes"][row])[order]
            record["proposal_objectness_logits"] = np.asarray(logits[row])[order]
            record["proposal_bbox_mode"] = mode
    return dataset_dicts
