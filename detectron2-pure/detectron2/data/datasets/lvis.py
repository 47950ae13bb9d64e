"""LVIS json files: COCO's format, with facts about what was looked for in each image."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._coco_file import CocoFile
from detectron2.data.datasets.coco import _set_category_metadata, _to_records

__all__ = ["get_lvis_instances_meta", "load_lvis_json", "register_lvis_instances"]

logger = logging.getLogger(__name__)


def load_lvis_json(
    json_file: str,
    image_root: str,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Load an LVIS json.

    Args:
        json_file: the annotations.
        image_root: folder that holds COCO's folders of images, such as ``val2017``.
        dataset_name: given, its metadata gets what ``load_coco_json`` puts there and
            ``class_image_count``, how many training images have each category.
        extra_annotation_keys: further keys of each annotation to keep, where present.

    Returns:
        Records as those of ``load_coco_json``, but always with category ids from 0 on; and with
        neg_category_ids and not_exhaustive_category_ids, which are the file's.

    Raises:
        FileNotFoundError, ValueError, KeyError, AssertionError: as ``load_coco_json``.
    """
    content = CocoFile(json_file)
    id_map = {category["id"]: i for i, category in enumerate(content.categories)}
    if dataset_name is not None and id_map:
        _set_category_metadata(dataset_name, content)
        MetadataCatalog.get(dataset_name).class_image_count = [
            {"id": category["id"], "image_count": category["image_count"]}
            for category in content.categories
            if "image_count" in category
        ]
    logger.info(f"Loaded {len(content.images)} images in the LVIS format from {json_file}")
    image_keys = ("neg_category_ids", "not_exhaustive_category_ids")
    return _to_records(content, image_root, id_map, extra_annotation_keys or (), image_keys)


def register_lvis_instances(
    name: str, metadata: Mapping[str, Any], json_file: str, image_root: str
) -> None:
    """Register a dataset in LVIS's json format; nothing is read before it is used.

    Args:
        name: of the dataset.
        metadata: extra facts about it; ``{}`` is fine.
        json_file: the annotations.
        image_root: see ``load_lvis_json``.

    Raises:
        AssertionError: the name is taken by something else, or the metadata differ.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    DatasetCatalog.register_same(name, partial(load_lvis_json, json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="lvis", **metadata
    )


def get_lvis_instances_meta(dataset_name: str) -> dict[str, Any]:
    """What is known about a split of LVIS before its file is read: nothing.

    The names of the 1,203 categories come from the file, see ``load_lvis_json``.
    """
    return {}
