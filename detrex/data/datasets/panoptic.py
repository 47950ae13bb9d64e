"""Panoptic data sets in COCO's format that have labels per pixel, too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from detectron2.utils.file_io import PathManager

from detrex.data.datasets.registration import fill_metadata, read_json, register_dataset

__all__ = ["load_panoptic_json", "panoptic_metadata", "register_panoptic"]


def panoptic_metadata(categories: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Class names, colors and the maps of ids, from the categories of a panoptic json.

    All classes have one numbering, by ascending id, that of the labels per pixel. So the ``stuff_``
    entries speak of all of them: a semantic evaluation takes them from there. ``thing_classes``
    are looked up by the same numbers; it has the things alone if they come first (COCO),
    where an evaluation of instances wants as many names as things.

    Args:
        categories: each with ``id``, ``name``, ``isthing`` and, if all have it, ``color``.
    """
    categories = sorted(categories, key=lambda c: c["id"])
    is_thing = [bool(c["isthing"]) for c in categories]
    num_things = sum(is_thing)
    things = categories[:num_things] if all(is_thing[:num_things]) else categories
    numbers = {c["id"]: i for i, c in enumerate(categories)}
    metadata: dict[str, Any] = {
        "thing_classes": [c["name"] for c in things],
        "stuff_classes": [c["name"] for c in categories],
        "thing_dataset_id_to_contiguous_id": {
            c["id"]: numbers[c["id"]] for c in categories if c["isthing"]
        },
        "stuff_dataset_id_to_contiguous_id": numbers,
    }
    if all("color" in c for c in categories):
        metadata["thing_colors"] = [list(c["color"]) for c in things]
        metadata["stuff_colors"] = [list(c["color"]) for c in categories]
    return metadata


def load_panoptic_json(
    json_file: str, image_dir: str, gt_dir: str, semseg_dir: str, meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The records of a panoptic json.

    Args:
        json_file: the annotations.
        image_dir: folder of the images (jpg).
        gt_dir: folder of the PNGs with the segments.
        semseg_dir: folder of the PNGs with labels, which have the same names.
        meta: has ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        Dataset dicts with ``file_name``, ``image_id``, ``pan_seg_file_name``,
        ``sem_seg_file_name`` and ``segments_info``, whose ``category_id`` is contiguous.

    Raises:
        FileNotFoundError: the json or a file of its first record does not exist.
        ValueError: the json has no annotations, or a category that ``meta`` lacks.
    """
    annotations = read_json(json_file, ["annotations"])["annotations"]
    return _to_records(annotations, json_file, image_dir, gt_dir, semseg_dir, meta)


def _to_records(
    annotations: Sequence[Mapping[str, Any]],
    json_file: str,
    image_dir: str,
    gt_dir: str,
    semseg_dir: str,
    meta: Mapping[str, Any],
) -> list[dict[str, Any]]:
    records = [
        {
            "file_name": os.path.join(image_dir, os.path.splitext(a["file_name"])[0] + ".jpg"),
            "image_id": a["image_id"],
            "pan_seg_file_name": os.path.join(gt_dir, a["file_name"]),
            "sem_seg_file_name": os.path.join(semseg_dir, a["file_name"]),
            "segments_info": [_contiguous(s, meta, json_file) for s in a["segments_info"]],
        }
        for a in annotations
    ]
    for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name"):
        if not PathManager.isfile(records[0][key]):
            raise FileNotFoundError(
                f"{records[0][key]}, the {key} of the first record of {json_file}, does not exist; "
                "check the folder, or make the file as the data set's documentation says."
            )
    return records


def _contiguous(
    segment: Mapping[str, Any], meta: Mapping[str, Any], json_file: str
) -> dict[str, Any]:
    category = segment["category_id"]
    for kind in ("thing", "stuff"):
        numbers = meta[f"{kind}_dataset_id_to_contiguous_id"]
        if category in numbers:
            return {**segment, "category_id": numbers[category], "isthing": kind == "thing"}
    raise ValueError(
        f"segment {segment['id']} in {json_file} has category {category}, which the metadata of "
        "the data set lack; give it a category that they have."
    )


def register_panoptic(
    name: str,
    metadata: Mapping[str, Any] | None,
    image_root: str,
    panoptic_root: str,
    semantic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
    **facts: Any,
) -> None:
    """Register a panoptic data set with labels per pixel; nothing is read.

    Args:
        name: of the data set.
        metadata: as ``panoptic_metadata`` gives them; None reads them from ``panoptic_json`` when
            they are needed.
        image_root: folder of the images (jpg).
        panoptic_root: folder of the PNGs with the segments.
        semantic_root: folder of the PNGs with labels.
        panoptic_json: the annotations.
        instances_json: COCO instances of the same images, for evaluating boxes and masks.
        facts: more attributes of the metadata.
    """
    known = None if metadata is None else dict(metadata)
    register_dataset(
        name,
        partial(_load, name, panoptic_json, image_root, panoptic_root, semantic_root, known),
        partial(_read_metadata, panoptic_json) if known is None else None,
        sem_seg_root=semantic_root,
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        json_file=instances_json,
        label_divisor=1000,
        **facts,
        **(known or {}),
    )


def _load(
    name: str,
    panoptic_json: str,
    image_root: str,
    panoptic_root: str,
    semantic_root: str,
    metadata: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    needed = ["annotations"] if metadata is not None else ["annotations", "categories"]
    content = read_json(panoptic_json, needed)
    if metadata is None:
        metadata = panoptic_metadata(content["categories"])
        fill_metadata(name, metadata)
    return _to_records(
        content["annotations"], panoptic_json, image_root, panoptic_root, semantic_root, metadata
    )


def _read_metadata(panoptic_json: str) -> dict[str, Any]:
    return panoptic_metadata(read_json(panoptic_json, ["categories"])["categories"])
