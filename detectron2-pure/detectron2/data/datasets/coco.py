"""COCO json files to detectron2's dataset dicts and back."""

from __future__ import annotations

import datetime
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._coco_file import CocoFile
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

__all__ = [
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
]

logger = logging.getLogger(__name__)

_ANNOTATION_KEYS = ("iscrowd", "bbox", "keypoints", "category_id")


def load_coco_json(
    json_file: str,
    image_root: str,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Load instances from a COCO json.

    Single bad annotations are left out with a warning; see ``_coco_file`` for what is an error.
    An annotation whose polygons are all unusable keeps its box. "info", "area" and "iscrowd"
    may be missing, and so may "annotations" (a test set).

    Args:
        json_file: the annotations.
        image_root: folder that the file names are relative to.
        dataset_name: given, its metadata gets ``thing_classes`` and
            ``thing_dataset_id_to_contiguous_id``, and category ids become 0, 1, ... in the
            order of the file's ids. Without it they stay as they are.
        extra_annotation_keys: further keys of each annotation to keep, where present.

    Returns:
        One record per image, by ascending id, with file_name, height, width, image_id and
        annotations, whose boxes are ``BoxMode.XYWH_ABS``.

    Raises:
        FileNotFoundError, ValueError, KeyError, AssertionError: as ``CocoFile``.
    """
    start = time.perf_counter()
    # The ids of the 2014 "minival" split are known to repeat.
    content = CocoFile(json_file, unique_annotation_ids="minival" not in json_file)
    if time.perf_counter() - start > 1:
        logger.info(f"Loading {json_file} takes {time.perf_counter() - start:.2f} seconds.")
    id_map = None
    if dataset_name is not None and content.categories:
        id_map = _set_category_metadata(dataset_name, content)
    logger.info(f"Loaded {len(content.images)} images in COCO format from {json_file}")
    return _to_records(content, image_root, id_map, extra_annotation_keys or ())


def _to_records(
    content: CocoFile,
    image_root: str,
    id_map: dict[int, int] | None,
    extra_annotation_keys: Sequence[str],
    image_keys: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The records of ``load_coco_json``, with more keys of each image where present."""
    keys = (*_ANNOTATION_KEYS, *extra_annotation_keys)
    bad_masks: list[Any] = []
    records = []
    for image in content.images:
        annotations = content.annotations.get(image["id"], ())
        records.append(
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                **{key: image[key] for key in image_keys if key in image},
                "annotations": [_to_object(a, image, keys, id_map, bad_masks) for a in annotations],
            }
        )
    if bad_masks:
        logger.warning(
            f"'{content.path}': {len(bad_masks)} annotations have no usable polygon and keep only "
            f"their box (ids {', '.join(map(str, bad_masks[:5]))}"
            f"{', ...' if len(bad_masks) > 5 else ''}). A polygon is a list of at least 6 "
            "numbers, an even count."
        )
    return records


def _set_category_metadata(dataset_name: str, content: CocoFile) -> dict[int, int]:
    """Write class names and the map of ids to the metadata; return the map."""
    ids = [category["id"] for category in content.categories]
    id_map = {category_id: i for i, category_id in enumerate(ids)}
    metadata = MetadataCatalog.get(dataset_name)
    names = [category["name"] for category in content.categories]
    known = metadata.get("thing_classes")
    if known is not None and list(known) != names:
        raise AssertionError(
            f"Dataset '{dataset_name}' is known to have thing_classes {list(known)}, but "
            f"'{content.path}' has the categories {names}."
        )
    if known is None:
        metadata.thing_classes = names
    metadata.thing_dataset_id_to_contiguous_id = id_map
    if ids != list(range(1, len(ids) + 1)) and "coco" not in dataset_name:
        logger.info(
            f"Category ids of '{content.path}' are not 1 to {len(ids)}; they are numbered from "
            "0 in their order, as thing_dataset_id_to_contiguous_id of the metadata tells."
        )
    return id_map


def _to_object(
    annotation: dict[str, Any],
    image: dict[str, Any],
    keys: Sequence[str],
    id_map: dict[int, int] | None,
    bad_masks: list[Any],
) -> dict[str, Any]:
    """One annotation in detectron2's form; notes its id where no polygon is usable."""
    obj = {key: annotation[key] for key in keys if key in annotation}
    obj.setdefault("iscrowd", 0)
    if "bbox" in obj:
        obj["bbox_mode"] = BoxMode.XYWH_ABS if len(obj["bbox"]) == 4 else BoxMode.XYWHA_ABS
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        obj["segmentation"] = _compressed(segmentation, image)
    elif segmentation:
        polygons = [p for p in segmentation if _is_polygon(p)]
        if polygons:
            obj["segmentation"] = polygons
        else:
            bad_masks.append(annotation.get("id"))
    if obj.get("keypoints"):
        obj["keypoints"] = _pixel_centers(obj["keypoints"])
    if id_map is not None:
        obj["category_id"] = id_map[obj["category_id"]]
    return obj


def _compressed(rle: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """Run lengths as pycocotools' string, whichever form the file has."""
    if isinstance(rle.get("counts"), list):
        return mask_util.frPyObjects(rle, image["height"], image["width"])
    return rle


def _is_polygon(part: Any) -> bool:
    return isinstance(part, (list, tuple)) and len(part) >= 6 and len(part) % 2 == 0


def _pixel_centers(keypoints: Sequence[float]) -> list[float]:
    """COCO's pixel indices (x, y, v, ...) as coordinates, where a pixel's center is at .5."""
    return [k + 0.5 if i % 3 != 2 else k for i, k in enumerate(keypoints)]


def register_coco_instances(
    name: str, metadata: Mapping[str, Any], json_file: str, image_root: str
) -> None:
    """Register a dataset in COCO's json format; nothing is read before it is used.

    Registering the same name with the same files again changes nothing, so a config or a
    notebook cell can run twice.

    Args:
        name: of the dataset, for example "blood_train".
        metadata: extra facts about it; ``{}`` is fine.
        json_file: the annotations.
        image_root: folder of the images.

    Raises:
        AssertionError: the name is taken by something else, or the metadata differ.
    """
    assert isinstance(name, str), f"The name of a dataset is a string, not {name!r}."
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    DatasetCatalog.register_same(name, partial(load_coco_json, json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict[str, Any]]:
    """Pair images with label images that have the same name.

    Args:
        gt_root: folder of the label images.
        image_root: folder of the images.
        gt_ext, image_ext: extensions without dot.

    Returns:
        Records with file_name and sem_seg_file_name, sorted by name. Where one side lacks a
        file, the pair is left out with a warning.

    Raises:
        AssertionError: one of the folders has no such file, or no name is in both.
    """

    def files(root: str, ext: str) -> dict[str, str]:
        names = [n for n in sorted(PathManager.ls(root)) if n.endswith("." + ext)]
        assert names, f"No .{ext} files in {root}."
        return {name[: -len(ext) - 1]: os.path.join(root, name) for name in names}

    labels, images = files(gt_root, gt_ext), files(image_root, image_ext)
    common = [stem for stem in images if stem in labels]
    assert common, f"No image in {image_root} has a label image of the same name in {gt_root}."
    if len(common) < max(len(images), len(labels)):
        alone = sorted(images.keys() ^ labels.keys())
        logger.warning(
            f"{len(alone)} files in {image_root} and {gt_root} have no counterpart and are left "
            f"out ({', '.join(alone[:5])}{', ...' if len(alone) > 5 else ''})."
        )
    logger.info(f"Loaded {len(common)} images with semantic segmentation from {image_root}")
    return [{"file_name": images[s], "sem_seg_file_name": labels[s]} for s in common]


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """A registered dataset as the content of a COCO json.

    Args:
        dataset_name: in both catalogs, with ``thing_classes`` in its metadata. Categories get
            their old ids back if ``thing_dataset_id_to_contiguous_id`` is there.

    Returns:
        Dictionary with info, images, categories, licenses and, if there are any, annotations.
    """
    records = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    id_map = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    old_ids = {new: old for old, new in id_map.items()}
    categories = [
        {"id": old_ids.get(i, i), "name": name} for i, name in enumerate(metadata.thing_classes)
    ]
    logger.info(f"Converting dataset '{dataset_name}' into COCO format")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, record in enumerate(records):
        image = {
            "id": record.get("image_id", i),
            "width": int(record["width"]),
            "height": int(record["height"]),
            "file_name": str(record["file_name"]),
        }
        images.append(image)
        for obj in record.get("annotations", ()):
            annotation = _from_object(obj, old_ids)
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **annotation})
    now = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
    content = {
        "info": {"date_created": now, "description": f"'{dataset_name}' in COCO format"},
        "images": images,
        "categories": categories,
        "licenses": None,
    }
    # Without the key an evaluator knows that there is nothing to compare with.
    return {**content, "annotations": annotations} if annotations else content


def _from_object(obj: dict[str, Any], old_ids: dict[int, int]) -> dict[str, Any]:
    """One detectron2 annotation in COCO's form, without ids of its own."""
    box = obj["bbox"].tolist() if isinstance(obj["bbox"], np.ndarray) else list(obj["bbox"])
    to_mode = BoxMode.XYWHA_ABS if len(box) == 5 else BoxMode.XYWH_ABS
    box = BoxMode.convert(box, obj["bbox_mode"], to_mode)
    segmentation = obj.get("segmentation")
    result = {
        "bbox": [round(float(x), 3) for x in box],
        "area": float(_area(segmentation) if segmentation else box[2] * box[3]),
        "iscrowd": int(obj.get("iscrowd", 0)),
        "category_id": int(old_ids.get(obj["category_id"], obj["category_id"])),
    }
    if obj.get("keypoints"):
        keypoints = obj["keypoints"]
        result["keypoints"] = [k - 0.5 if i % 3 != 2 else k for i, k in enumerate(keypoints)]
        # COCO counts the labeled ones, hidden or visible.
        result["num_keypoints"] = sum(v > 0 for v in keypoints[2::3])
    if segmentation:
        result["segmentation"] = _jsonable(segmentation)
    return result


def _area(segmentation: Any) -> float:
    """Square pixels of polygons (shoelace formula) or of run lengths."""
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
        return float(mask_util.area(segmentation))
    area = 0.0
    for polygon in segmentation:
        x, y = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
        area += 0.5 * abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1)))
    return area


def _jsonable(segmentation: Any) -> Any:
    if not isinstance(segmentation, dict):
        return [np.asarray(polygon).tolist() for polygon in segmentation]
    counts = segmentation["counts"]
    return {
        **segmentation,
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write a registered dataset as COCO json.

    Args:
        dataset_name: see ``convert_to_coco_dict``.
        output_file: local path.
        allow_cached: keep the file if it exists, with a warning, whatever it holds.
    """
    if allow_cached and PathManager.exists(output_file):
        logger.warning(
            f"Using previously cached COCO format annotations at '{output_file}'. "
            "Remove that file if the dataset has changed since."
        )
        return
    content = convert_to_coco_dict(dataset_name)
    folder = os.path.dirname(os.path.abspath(output_file))
    PathManager.mkdirs(folder)
    logger.info(f"Caching COCO format annotations at '{output_file}' ...")
    # Readers, also those of other processes, see the whole file or none.
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False) as f:
        try:
            json.dump(content, f)
            f.close()
            os.replace(f.name, output_file)
        except BaseException:
            os.unlink(f.name)
            raise
