"""Annotations as pycocotools wants them, from files that do not quite have them so."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import pycocotools.mask as mask_util
from detectron2.data.datasets._coco_file import read_json
from pycocotools.coco import COCO

logger = logging.getLogger(__name__)


def coco_from_json(path: str) -> COCO:
    """Read a COCO json, see :func:`coco_from_dict`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a COCO json.
    """
    return coco_from_dict(read_json(path), path)


def coco_from_dict(dataset: dict[str, Any], source: str) -> COCO:
    """Index a COCO dictionary for evaluation.

    What an evaluation needs and the dictionary lacks is filled in: ``info``, the ``iscrowd``,
    ``area`` and ``bbox`` of annotations, and annotation ids where some are absent, equal or zero
    (pycocotools takes the id 0 for "no match").

    Args:
        dataset: a dictionary in the format of COCO; is modified.
        source: what to call it in messages.

    Raises:
        ValueError: ``images`` or ``categories`` is missing, or an annotation has neither a box nor
            a mask.
    """
    for key in ("images", "categories"):
        if not isinstance(dataset, dict) or not isinstance(dataset.get(key), list):
            raise ValueError(f"{source} is not a COCO annotation file: it has no list {key!r}.")
    dataset.setdefault("info", {})
    if "annotations" in dataset:
        _complete_annotations(dataset, source)
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _complete_annotations(dataset: dict[str, Any], source: str) -> None:
    annotations = dataset["annotations"]
    sizes = {image["id"]: image for image in dataset["images"]}
    filled = dict.fromkeys(("iscrowd", "bbox", "area"), 0)
    for annotation in annotations:
        for key in filled:
            filled[key] += key not in annotation
        annotation.setdefault("iscrowd", 0)
        if "bbox" not in annotation or "area" not in annotation:
            _measure(annotation, sizes.get(annotation["image_id"]), source)
    for key, count in filled.items():
        if count:
            logger.warning(f"{count} annotations of {source} have no {key!r}; it was filled in.")
    ids = {annotation.get("id", 0) for annotation in annotations}
    if 0 in ids or len(ids) < len(annotations):
        logger.info(f"Annotations of {source} are numbered anew for the evaluation.")
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number


def _measure(annotation: dict[str, Any], image: dict[str, Any] | None, source: str) -> None:
    """Fill in the box and the area from the mask, or else the area from the box."""
    segmentation = annotation.get("segmentation")
    if segmentation and image and "height" in image and "width" in image:
        rle = _to_rle(segmentation, image["height"], image["width"])
        annotation.setdefault("bbox", mask_util.toBbox(rle).tolist())
        annotation.setdefault("area", float(mask_util.area(rle)))
    elif "bbox" in annotation:
        _, _, width, height = annotation["bbox"]
        annotation["area"] = width * height
    else:
        raise ValueError(
            f"Annotation {annotation.get('id')} of {source} has neither 'bbox' nor a usable "
            "'segmentation'."
        )


def _to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A COCO segmentation (polygons, or run lengths in either form) as one compressed RLE."""
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, height, width)
    return segmentation
