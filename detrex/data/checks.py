"""What can be known to be wrong with the data before training starts."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from detrex.data.coco import DatasetError, coco_dataset_name, kept_for_the_loader

__all__ = ["check_dataloaders", "check_dataset", "check_same_classes", "dataset_names"]

logger = logging.getLogger(__name__)

_EXAMPLES = 5
_EXIF_ORIENTATION = 0x0112


def check_dataloaders(
    dataloader: Any,
    num_classes: int | None = None,
    num_queries: int | None = None,
    splits: Sequence[str] = ("train", "test"),
) -> None:
    """Check the data sets that a ``dataloader`` config node names; call it before training.

    Args:
        dataloader: node with ``<split>.dataset``, a LazyCall of ``coco_dataset`` or of
            ``get_detection_dataset_dicts``; others are not checked.
        num_classes: classes the model predicts; None leaves this unchecked.
        num_queries: objects the model can predict per image; None leaves this unchecked.
        splits: which parts of ``dataloader`` to check; ``("test",)`` before an evaluation.

    Raises:
        DatasetError: something that makes training or evaluation impossible or meaningless.
        FileNotFoundError: annotation file, image directory or images are missing.
    """
    known: list[Metadata] = []
    for split in splits:
        node = dataloader[split].get("dataset")
        if not isinstance(node, DictConfig):
            continue
        _require_values(node, f"dataloader.{split}.dataset")
        with kept_for_the_loader():
            dicts = instantiate(node)
        metadata = [MetadataCatalog.get(name) for name in dataset_names(node)]
        if not isinstance(dicts, list) or not metadata:
            logger.info("dataloader.%s.dataset has no records to check.", split)
            continue
        check_dataset(dicts, metadata[0], num_classes, num_queries, needs_objects=split == "train")
        if not _are_segmented(dicts):  # their names differ in spelling, and have one numbering
            known.extend(metadata)
    for other in known[1:]:
        check_same_classes(known[0], other)


def check_dataset(
    dicts: Sequence[dict[str, Any]],
    metadata: Metadata,
    num_classes: int | None = None,
    num_queries: int | None = None,
    needs_objects: bool = True,
) -> None:
    """Compare dataset dicts with the files on disk and with the model; errors name what to change.

    Args:
        dicts: detectron2 dataset dicts.
        metadata: their metadata; its ``thing_classes``, or of segments and labels per pixel its
            ``stuff_classes``, are compared with ``num_classes``.
        num_classes: classes the model predicts.
        num_queries: objects the model can predict per image; more per image give a warning.
        needs_objects: a data set without any object is an error.

    Raises:
        DatasetError: wrong number of classes, class ids out of range, no objects, or images of
            another size than annotated.
        FileNotFoundError: images that do not exist.
    """
    segmented = _are_segmented(dicts)
    names = metadata.get("stuff_classes" if segmented else "thing_classes")
    if names is not None and num_classes is not None and len(names) != num_classes:
        raise DatasetError(
            f"the data set {metadata.name!r} has {len(names)} classes ({_shorten(names)}) but the "
            f"model predicts {num_classes}; set model.num_classes={len(names)}."
        )
    limit = num_classes if num_classes is not None else len(names) if names is not None else None
    _check_class_ids(dicts, limit)
    counts = [len(_objects(d)) for d in dicts]
    if not segmented:
        _warn_of_boxes(dicts)
    if needs_objects and not segmented and not any(counts):
        raise DatasetError(
            f"the data set {metadata.name!r} has no object to learn from; "
            "check its annotations, or take another one."
        )
    _warn_if_crowded(dicts, counts, num_queries)
    _check_images(dicts)


def check_same_classes(train: Metadata, test: Metadata) -> None:
    """Require the same class names in the same order, as a class is only its index to the model.

    Raises:
        DatasetError: they differ; the message says where first.
    """
    ours, theirs = train.get("thing_classes"), test.get("thing_classes")
    if ours is None or theirs is None or list(ours) == list(theirs):
        return
    if len(ours) != len(theirs):
        difference = (
            f"{len(ours)} classes ({_shorten(ours)}) and {len(theirs)} ({_shorten(theirs)})"
        )
    else:
        index = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        difference = f"class {index} is {ours[index]!r} in one and {theirs[index]!r} in the other"
    raise DatasetError(
        f"the data sets {train.name!r} and {test.name!r} have different categories: {difference}; "
        "give both json files the same categories (classes are ordered by category id)."
    )


def _require_values(node: DictConfig, path: str) -> None:
    missing = [f"{path}.{key!s}" for key in node if OmegaConf.is_missing(node, key)]
    if missing:
        raise DatasetError(
            f"{' and '.join(missing)} must be given; add {missing[0]}=... to the command "
            "line or the config."
        )


def dataset_names(node: DictConfig) -> list[str]:
    """Catalog names behind a dataset node; empty for one that is not in the catalogs."""
    if "json_file" in node and "image_root" in node:
        return [node.get("name") or coco_dataset_name(node.json_file, node.image_root)]
    names = node.get("names", [])
    return [names] if isinstance(names, str) else list(names)


def _are_segmented(dicts: Sequence[dict[str, Any]]) -> bool:
    """Whether records have segments or labels per pixel, and no annotations of objects."""
    keys = dicts[0].keys() if dicts else set()
    return "annotations" not in keys and bool({"segments_info", "sem_seg_file_name"} & keys)


def _objects(dataset_dict: dict[str, Any]) -> list[dict[str, Any]]:
    annotations = dataset_dict.get("annotations", dataset_dict.get("segments_info", []))
    return [a for a in annotations if not a.get("iscrowd", 0)]


def _check_class_ids(dicts: Sequence[dict[str, Any]], limit: int | None) -> None:
    for dataset_dict in dicts:
        for index, annotation in enumerate(_objects(dataset_dict)):
            category = annotation["category_id"]
            if category < 0 or (limit is not None and category >= limit):
                raise DatasetError(
                    f"annotation number {index} of {dataset_dict['file_name']} has class "
                    f"{category}, but classes go from 0 to {'?' if limit is None else limit - 1}."
                )


def _warn_of_boxes(dicts: Sequence[dict[str, Any]]) -> None:
    """Objects that training will leave out because their box shows nothing of the image."""
    useless = [
        f"number {index} of {d['file_name']}"
        for d in dicts
        for index, annotation in enumerate(_objects(d))
        if not _has_visible_area(annotation, d.get("width", math.inf), d.get("height", math.inf))
    ]
    if useless:
        logger.warning(
            "%d annotations have a box without area in their image and will be left out: %s",
            len(useless),
            _shorten(useless),
        )


def _has_visible_area(annotation: dict[str, Any], width: float, height: float) -> bool:
    if annotation["bbox_mode"] not in (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS):
        return True
    x0, y0, x1, y1 = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:
        x1, y1 = x0 + x1, y0 + y1
    # Comparisons with "not a number" are false.
    return min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0)


def _warn_if_crowded(
    dicts: Sequence[dict[str, Any]], counts: list[int], num_queries: int | None
) -> None:
    if num_queries is None or not counts or max(counts) <= num_queries:
        return
    worst = max(range(len(counts)), key=counts.__getitem__)
    logger.warning(
        "%d of %d images have more objects than the model's %d queries (%s has %d), so some can "
        "never be found; set model.num_queries higher",
        sum(c > num_queries for c in counts),
        len(counts),
        num_queries,
        dicts[worst]["file_name"],
        counts[worst],
    )


def _check_images(dicts: Sequence[dict[str, Any]]) -> None:
    """Every image exists, is an image, and has the size that the annotations assume."""
    missing = [d["file_name"] for d in dicts if not os.path.isfile(d["file_name"])]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(dicts)} images do not exist, for example "
            f"{_shorten(missing)}; check image_root of the dataset."
        )
    examples: list[str] = []
    for dataset_dict in dicts:
        fault = _image_fault(dataset_dict)
        if fault:
            examples.append(f"{dataset_dict['file_name']} {fault}")
    if examples:
        raise DatasetError(
            f"{len(examples)} of {len(dicts)} images cannot be used: {_shorten(examples)}; "
            "repair them or remove them from the annotations."
        )


def _image_fault(dataset_dict: dict[str, Any]) -> str | None:
    """Reads the header only, so that it is fast; a truncated body shows when it is loaded."""
    try:
        with Image.open(dataset_dict["file_name"]) as image:
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION, 1) >= 5:  # stored lying on its side
                width, height = height, width
    except OSError:
        return "is not an image"
    expected = dataset_dict.get("width", width), dataset_dict.get("height", height)
    if (width, height) != expected:
        return f"is {width}x{height} and annotated as {expected[0]}x{expected[1]}"
    return None


def _shorten(items: Sequence[Any]) -> str:
    shown = ", ".join(str(i) for i in items[:_EXAMPLES])
    return shown if len(items) <= _EXAMPLES else f"{shown}, ..."
