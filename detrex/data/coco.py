"""COCO-format data sets from nothing but their paths.

In a config::

    dataloader.train.dataset = L(coco_dataset)(json_file="train.json", image_root="images")
    dataloader.test.dataset = L(coco_dataset)(json_file="val.json", image_root="images")
    dataloader.evaluator = L(COCOEvaluator)(
        dataset_name=L(register_coco)(
            json_file="${dataloader.test.dataset.json_file}",
            image_root="${dataloader.test.dataset.image_root}",
        )
    )

so that ``dataloader.train.dataset.json_file=...`` on the command line is all that a data set of
one's own needs. Class names come from the json's categories, sorted by category id.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

__all__ = ["DatasetError", "coco_dataset", "coco_dataset_name", "load_coco", "register_coco"]

logger = logging.getLogger(__name__)

_EXAMPLES = 5  # how many bad records a message names


class DatasetError(ValueError):
    """A data set cannot be used as it is; the message names the file, the record and a way out."""


@dataclass
class CocoData:
    """A json file as detectron2's dataset dicts.

    Attributes:
        dicts: one per image, sorted by image id: ``file_name``, ``height``, ``width``,
            ``image_id``, ``annotations`` (XYWH_ABS boxes, contiguous ``category_id``).
        class_names: by contiguous id.
        contiguous_ids: category id of the json -> 0 .. number of classes - 1.
        dropped: reason -> descriptions of the annotations that were left out for it.
        ready_for_evaluation: COCO's evaluation can read the file as it is. It needs ``area`` and
            ``iscrowd`` and counts matches wrongly where annotation ids repeat or are 0.
    """

    dicts: list[dict[str, Any]]
    class_names: list[str]
    contiguous_ids: dict[int, int]
    dropped: dict[str, list[str]] = field(default_factory=dict)
    ready_for_evaluation: bool = True


def coco_dataset(
    json_file: str,
    image_root: str,
    name: str | None = None,
    filter_empty: bool = False,
) -> list[dict[str, Any]]:
    """Register a COCO-format data set and return its dataset dicts for a data loader.

    Args:
        json_file: annotations in COCO's object detection format.
        image_root: directory that the json's ``file_name`` entries are relative to.
        name: name in the catalogs; by default made from the two paths.
        filter_empty: leave out images without an object to learn from (none, or only crowds).
            They are negatives worth training on, so they stay by default.

    Raises:
        FileNotFoundError: ``json_file`` or ``image_root`` does not exist.
        DatasetError: the json is not usable.
    """
    dicts = DatasetCatalog.get(register_coco(json_file, image_root, name))
    if not filter_empty:
        return dicts
    kept = [d for d in dicts if any(not a["iscrowd"] for a in d["annotations"])]
    if not kept:
        raise DatasetError(f"{json_file}: no image has an object; give filter_empty=False to keep")
    logger.info("%s: left out %d images without objects", json_file, len(dicts) - len(kept))
    return kept


def register_coco(json_file: str, image_root: str, name: str | None = None) -> str:
    """Make a COCO-format data set known to detectron2's catalogs and return its name.

    Calling it again with the same paths does nothing; the json is read when the data set is used.

    Raises:
        FileNotFoundError: ``json_file`` or ``image_root`` does not exist.
        DatasetError: ``name`` is taken by another data set.
    """
    json_path, root = _absolute(json_file), _absolute(image_root)
    if not PathManager.isfile(json_path):
        raise FileNotFoundError(
            f"annotation file {json_file!r} does not exist; set json_file of the dataset, for "
            "example dataloader.train.dataset.json_file=path/to/train.json"
        )
    if not PathManager.isdir(root):
        raise FileNotFoundError(
            f"image directory {image_root!r} does not exist; set image_root of the dataset, for "
            "example dataloader.train.dataset.image_root=path/to/images"
        )
    name = name or coco_dataset_name(json_file, image_root)
    metadata = MetadataCatalog.get(name)
    source = (json_path, root)
    if name in DatasetCatalog:
        if metadata.get("coco_source") != source:
            raise DatasetError(
                f"the name {name!r} already belongs to another data set; give this one another name"
            )
        return name
    DatasetCatalog.register(name, lambda: _load_registered(name, json_path, root))
    metadata.set(coco_source=source, image_root=root, evaluator_type="coco")
    return name


def coco_dataset_name(json_file: str, image_root: str) -> str:
    """The name under which the two paths are registered; safe in file names."""
    json_path, root = _absolute(json_file), _absolute(image_root)
    digest = hashlib.sha256(f"{json_path}\n{root}".encode()).hexdigest()[:8]
    stem = "_".join(Path(json_path).with_suffix("").parts[-2:])
    return f"{''.join(c if c.isalnum() else '_' for c in stem)}_{digest}"


def load_coco(json_file: str, image_root: str) -> CocoData:
    """Read a COCO-format json file into dataset dicts, checking every record.

    Annotations that nothing can be learned from (no area, not finite, outside their image, of an
    image that is not listed) are left out and listed in ``dropped``.

    Raises:
        DatasetError: not a json of that format, no images or categories, repeated image ids,
            images without size, annotations of a category that the file does not define.
    """
    content = _read_json(json_file)
    class_names, contiguous_ids = _categories(content["categories"], json_file)
    dicts = _images(content["images"], json_file, image_root)
    by_id = {d["image_id"]: d for d in dicts}
    dropped: defaultdict[str, list[str]] = defaultdict(list)
    for index, annotation in enumerate(content["annotations"]):
        where = f"annotation {annotation.get('id', f'number {index}')}"
        image = by_id.get(annotation.get("image_id"))
        if image is None:
            dropped["of an image that the file does not list"].append(where)
            continue
        where = f"{where} of {image['file_name']}"
        category = annotation.get("category_id")
        if category not in contiguous_ids:
            raise DatasetError(
                f"{json_file}: {where} has category_id {category!r}, but the file defines only "
                f"{_shorten(sorted(contiguous_ids))}; add the category or remove the annotation"
            )
        fault = _box_fault(annotation.get("bbox"), image["width"], image["height"])
        if fault:
            dropped[fault].append(where)
            continue
        image["annotations"].append(_annotation(annotation, contiguous_ids[category]))
    return CocoData(
        dicts, class_names, contiguous_ids, dict(dropped), _ready(content["annotations"])
    )


def _load_registered(name: str, json_path: str, root: str) -> list[dict[str, Any]]:
    data = load_coco(PathManager.get_local_path(json_path), root)
    for reason, records in data.dropped.items():
        logger.warning(
            "%s: left out %d annotations %s: %s", json_path, len(records), reason, _shorten(records)
        )
    metadata = MetadataCatalog.get(name)
    metadata.set(
        thing_classes=data.class_names, thing_dataset_id_to_contiguous_id=data.contiguous_ids
    )
    if data.ready_for_evaluation:
        metadata.set(json_file=json_path)
    else:
        # Without json_file, COCOEvaluator writes a complete json from the dicts by itself.
        logger.warning(
            "%s: annotations lack area, iscrowd or a unique id above 0, which COCO's evaluation "
            "needs; they are filled in for it",
            json_path,
        )
    return data.dicts


def _absolute(path: str) -> str:
    path = os.fspath(path)
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _read_json(json_file: str) -> dict[str, Any]:
    try:
        with open(json_file, encoding="utf-8") as f:
            content = json.load(f)
    except ValueError as e:
        raise DatasetError(f"{json_file} is not a json file: {e}") from e
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(
                f"{json_file} is not in COCO's detection format: it has no list {key!r}"
            )
    for key in ("images", "categories"):
        if not content[key]:
            raise DatasetError(f"{json_file} holds no {key}: the list {key!r} is empty")
    return content


def _categories(
    categories: list[dict[str, Any]], json_file: str
) -> tuple[list[str], dict[int, int]]:
    for category in categories:
        if not isinstance(category.get("id"), int) or not isinstance(category.get("name"), str):
            raise DatasetError(
                f"{json_file}: category {category} needs an integer 'id' and a 'name'"
            )
    ordered = sorted(categories, key=lambda c: c["id"])
    contiguous_ids = {c["id"]: i for i, c in enumerate(ordered)}
    if len(contiguous_ids) != len(ordered):
        raise DatasetError(f"{json_file}: two categories have the same id")
    return [c["name"] for c in ordered], contiguous_ids


def _images(images: list[dict[str, Any]], json_file: str, image_root: str) -> list[dict[str, Any]]:
    dicts: dict[Any, dict[str, Any]] = {}
    for image in images:
        missing = [k for k in ("id", "file_name", "height", "width") if image.get(k) is None]
        if missing:
            raise DatasetError(f"{json_file}: image {image} lacks {', '.join(missing)}")
        if image["id"] in dicts:
            raise DatasetError(f"{json_file}: two images have the id {image['id']}")
        dicts[image["id"]] = {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": int(image["height"]),
            "width": int(image["width"]),
            "image_id": image["id"],
            "annotations": [],
        }
    return [dicts[image_id] for image_id in sorted(dicts)]


def _box_fault(bbox: Any, width: int, height: int) -> str | None:
    """Why a COCO box (x, y, w, h) in an image of that size is of no use; None if it is."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return "without a box of four numbers"
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in bbox):
        return "with a box that is not finite"
    x, y, w, h = bbox
    if w <= 0 or h <= 0:
        return "with a box of zero area"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "with a box outside the image"
    return None


def _annotation(annotation: dict[str, Any], category: int) -> dict[str, Any]:
    kept = {
        "bbox": annotation["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    segmentation = _segmentation(annotation.get("segmentation"))
    if segmentation:
        kept["segmentation"] = segmentation
    return kept


def _segmentation(value: Any) -> list[list[float]] | dict[str, Any] | None:
    """Polygons with an area, or compressed run lengths; None where there is neither."""
    if isinstance(value, list):
        return [p for p in value if len(p) >= 6 and len(p) % 2 == 0] or None
    if isinstance(value, dict) and isinstance(value.get("counts"), list):
        return mask_util.frPyObjects(value, *value["size"])
    return value


def _ready(annotations: list[dict[str, Any]]) -> bool:
    ids = {a.get("id") for a in annotations}
    complete = all("area" in a and "iscrowd" in a for a in annotations)
    return complete and len(ids) == len(annotations) and not ids & {0, None}


def _shorten(items: list[Any]) -> str:
    shown = ", ".join(str(i) for i in items[:_EXAMPLES])
    return shown if len(items) <= _EXAMPLES else f"{shown}, ... ({len(items)} in all)"
