"""COCO panoptic segmentation: segments in PNG files, described by a json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._coco_file import read_json
from detectron2.data.datasets.coco import load_coco_json, load_sem_seg

__all__ = [
    "load_coco_panoptic_json",
    "merge_to_panoptic",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
]


def load_coco_panoptic_json(
    json_file: str, image_dir: str, gt_dir: str, meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Load a COCO panoptic json.

    Args:
        json_file: the annotations.
        image_dir: folder of the (jpg) images.
        gt_dir: folder of the PNGs with the segments.
        meta: has the maps ``thing_dataset_id_to_contiguous_id`` and
            ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        Records with file_name, image_id, pan_seg_file_name and segments_info; each segment
        has a contiguous category_id and ``isthing``.

    Raises:
        FileNotFoundError: no such json.
        ValueError: the json has no annotations, or a category that ``meta`` lacks.
    """
    annotations = read_json(json_file).get("annotations")
    if not annotations:
        raise ValueError(f"'{json_file}' has no 'annotations'; is it a COCO panoptic json?")
    return [
        {
            "file_name": os.path.join(image_dir, os.path.splitext(a["file_name"])[0] + ".jpg"),
            "image_id": int(a["image_id"]),
            "pan_seg_file_name": os.path.join(gt_dir, a["file_name"]),
            "segments_info": [_contiguous(s, meta, json_file) for s in a["segments_info"]],
        }
        for a in annotations
    ]


def _contiguous(
    segment: Mapping[str, Any], meta: Mapping[str, Any], json_file: str
) -> dict[str, Any]:
    category = segment["category_id"]
    for kind in ("thing", "stuff"):
        ids = meta[f"{kind}_dataset_id_to_contiguous_id"]
        if category in ids:
            return {**segment, "category_id": ids[category], "isthing": kind == "thing"}
    raise ValueError(
        f"Segment {segment['id']} in '{json_file}' has category {category}, which the metadata "
        "of the dataset do not have."
    )


def register_coco_panoptic(
    name: str,
    metadata: Mapping[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
) -> None:
    """Register a dataset with COCO panoptic segmentation as ``name``.

    Args:
        name: of the dataset.
        metadata: with the maps of ids that ``load_coco_panoptic_json`` needs.
        image_root: folder of the images.
        panoptic_root: folder of the PNGs.
        panoptic_json: the annotations.
        instances_json: COCO instances of the same images, for evaluating boxes and masks.
    """
    DatasetCatalog.register_same(
        name,
        partial(load_coco_panoptic_json, panoptic_json, image_root, panoptic_root, dict(metadata)),
    )
    MetadataCatalog.get(name).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        label_divisor=1000,
        **metadata,
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: Mapping[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
) -> None:
    """Register things as instances and stuff as semantic segmentation (Panoptic FPN's way).

    Makes ``{name}_separated`` with both and ``{name}_stuffonly`` with the stuff alone.

    Args:
        name: start of the two names.
        metadata: extra facts.
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNGs, for the evaluation.
        panoptic_json: panoptic annotations, for the evaluation.
        sem_seg_root: folder of the label images of the stuff.
        instances_json: COCO instances of the same images.
    """
    panoptic_name = name + "_separated"
    DatasetCatalog.register_same(
        panoptic_name,
        partial(_load_separated, instances_json, image_root, panoptic_name, sem_seg_root),
    )
    MetadataCatalog.get(panoptic_name).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        sem_seg_root=sem_seg_root,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        **metadata,
    )
    stuff_name = name + "_stuffonly"
    DatasetCatalog.register_same(stuff_name, partial(load_sem_seg, sem_seg_root, image_root))
    MetadataCatalog.get(stuff_name).set(
        sem_seg_root=sem_seg_root,
        image_root=image_root,
        evaluator_type="sem_seg",
        ignore_label=255,
        **metadata,
    )


def _load_separated(
    instances_json: str, image_root: str, name: str, sem_seg_root: str
) -> list[dict[str, Any]]:
    return merge_to_panoptic(
        load_coco_json(instances_json, image_root, name), load_sem_seg(sem_seg_root, image_root)
    )


def merge_to_panoptic(
    detection_dicts: list[dict[str, Any]], sem_seg_dicts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Join the records of the same image, by file_name.

    Args:
        detection_dicts: records with annotations; all of them are in the result.
        sem_seg_dicts: records with sem_seg_file_name.

    Raises:
        AssertionError: there are no ``sem_seg_dicts``.
        KeyError: an image has no semantic segmentation.
    """
    assert sem_seg_dicts, "There is no semantic segmentation to join."
    by_file = {record["file_name"]: record for record in sem_seg_dicts}
    merged = []
    for record in detection_dicts:
        if record["file_name"] not in by_file:
            raise KeyError(f"{record['file_name']} has no semantic segmentation.")
        merged.append({**record, **by_file[record["file_name"]]})
    return merged
