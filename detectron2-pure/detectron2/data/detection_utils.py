"""From a record to what a model trains on: reading images, transforming annotations.

The building blocks of ``DatasetMapper`` and of mappers that people write themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import transforms as T
from detectron2.data._images import (
    SizeMismatchError,
    _apply_exif_orientation,  # noqa: F401  (projects import it from here)
    check_image_size,
    convert_image_to_rgb,
    convert_PIL_to_numpy,
    read_image,
)
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    polygons_to_bitmask,
)

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "build_augmentation",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "create_keypoint_hflip_indices",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "get_fed_loss_cls_weights",
    "read_image",
    "transform_instance_annotations",
    "transform_keypoint_annotations",
    "transform_proposals",
]

logger = logging.getLogger(__name__)


def transform_proposals(
    dataset_dict: dict[str, Any],
    image_shape: tuple[int, int],
    transforms: T.Transform,
    *,
    proposal_topk: int,
    min_box_size: float = 0,
) -> None:
    """Turn precomputed proposals of a record into ``dataset_dict["proposals"]``, in place.

    Args:
        dataset_dict: has proposal_boxes (N, 4), proposal_bbox_mode and
            proposal_objectness_logits (N,), which are removed; without them nothing happens.
        image_shape: (h, w) after the transforms.
        transforms: what was done to the image.
        proposal_topk: how many to keep, from the front.
        min_box_size: smaller ones are left out.
    """
    if "proposal_boxes" not in dataset_dict:
        return
    boxes = BoxMode.convert(
        np.asarray(dataset_dict.pop("proposal_boxes"), dtype=np.float64),
        dataset_dict.pop("proposal_bbox_mode"),
        BoxMode.XYXY_ABS,
    )
    logits = torch.as_tensor(
        np.asarray(dataset_dict.pop("proposal_objectness_logits")).astype("float32")
    )
    proposals = Instances(image_shape)
    proposals.proposal_boxes = Boxes(transforms.apply_box(boxes))
    proposals.proposal_boxes.clip(image_shape)
    proposals.objectness_logits = logits
    keep = proposals.proposal_boxes.nonempty(threshold=min_box_size)
    dataset_dict["proposals"] = proposals[keep][:proposal_topk]


def get_bbox(annotation: Mapping[str, Any]) -> np.ndarray:
    """The box of an annotation, (4,) absolute xyxy."""
    box = np.asarray(annotation["bbox"], dtype=np.float64)
    return BoxMode.convert(box[None], annotation["bbox_mode"], BoxMode.XYXY_ABS)[0]


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Do to an annotation what was done to the image.

    Args:
        annotation: of one object; is changed and returned. Its bbox becomes (4,) absolute
            xyxy, clipped to the image; polygons become arrays, run lengths a bitmap (H, W),
            key points (K, 3).
        transforms: one or a list.
        image_size: (h, w) after the transforms.
        keypoint_hflip_indices: see ``create_keypoint_hflip_indices``.

    Raises:
        ValueError: the segmentation is neither polygons nor run lengths.
    """
    if not isinstance(transforms, T.Transform):
        transforms = T.TransformList(list(transforms))
    height, width = image_size
    box = transforms.apply_box(get_bbox(annotation)[None])[0].clip(min=0)
    annotation["bbox"] = np.minimum(box, (width, height, width, height))
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        annotation["segmentation"] = _transform_segmentation(
            annotation["segmentation"], transforms, (height, width)
        )
    if "keypoints" in annotation:
        annotation["keypoints"] = transform_keypoint_annotations(
            annotation["keypoints"], transforms, image_size, keypoint_hflip_indices
        )
    return annotation


def _transform_segmentation(
    segmentation: Any, transforms: T.Transform, image_size: tuple[int, int]
) -> Any:
    if isinstance(segmentation, list):
        # Copies: transforms may write into their input.
        polygons = [np.array(p, dtype=np.float64).reshape(-1, 2) for p in segmentation]
        return [p.reshape(-1) for p in transforms.apply_polygons(polygons)]
    if isinstance(segmentation, dict):
        mask = transforms.apply_segmentation(_decode(segmentation))
        assert tuple(mask.shape[:2]) == image_size, (
            f"A mask of shape {mask.shape} does not fit an image of size {image_size}."
        )
        return mask
    raise ValueError(
        f"Cannot transform segmentation of type '{type(segmentation)}'! Supported types are: "
        "polygons as list[list[float] or ndarray], COCO-style RLE as a dict."
    )


def _decode(rle: dict[str, Any]) -> np.ndarray:
    """Run lengths, compressed or not, as (H, W) uint8."""
    if isinstance(rle["counts"], list):
        rle = mask_util.frPyObjects(rle, *rle["size"])
    return mask_util.decode(rle)


def transform_keypoint_annotations(
    keypoints: Any,
    transforms: T.TransformList,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> np.ndarray:
    """Transform key points; those that leave the image count as unlabeled.

    Args:
        keypoints: 3 K numbers (x, y, visibility, ...), or (K, 3).
        transforms: what was done to the image.
        image_size: (h, w) after the transforms.
        keypoint_hflip_indices: where each point goes when the image is mirrored.

    Returns:
        (K, 3) float64; all zero where unlabeled.

    Raises:
        ValueError: the image was mirrored and ``keypoint_hflip_indices`` are missing or of the
            wrong number.
    """
    points = np.array(keypoints, dtype=np.float64).reshape(-1, 3)
    points[:, :2] = transforms.apply_coords(points[:, :2].copy())
    height, width = image_size
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= (width, height))).all(axis=1)
    points[~inside, 2] = 0
    steps = transforms.transforms if isinstance(transforms, T.TransformList) else [transforms]
    if sum(isinstance(step, T.HFlipTransform) for step in steps) % 2 == 1:
        if keypoint_hflip_indices is None:
            raise ValueError("Cannot flip keypoints without providing flip indices!")
        n, known = len(points), len(keypoint_hflip_indices)
        if n != known:
            raise ValueError(f"Keypoint data has {n} points, but metadata contains {known} points!")
        points = points[np.asarray(keypoint_hflip_indices, dtype=np.int64)]
    points[points[:, 2] == 0] = 0  # COCO's convention
    return points


def annotations_to_instances(
    annos: Sequence[dict[str, Any]],
    image_size: tuple[int, int],
    mask_format: str = "polygon",
) -> Instances:
    """The ground truth of an image as ``Instances``.

    Args:
        annos: annotations after ``transform_instance_annotations``, possibly none.
        image_size: (h, w).
        mask_format: "polygon" or "bitmask".

    Returns:
        Instances with gt_boxes, gt_classes and, where the annotations have them, gt_masks and
        gt_keypoints. An object without segmentation among others that have one gets an empty
        mask (see ``filter_empty_instances``).

    Raises:
        ValueError: bitmaps or run lengths where ``mask_format`` is "polygon", or polygons with
            fewer than 3 points.
    """
    boxes = [get_bbox(obj) for obj in annos]
    target = Instances(image_size)
    target.gt_boxes = Boxes(np.stack(boxes) if boxes else np.zeros((0, 4)))
    target.gt_classes = torch.tensor([int(obj["category_id"]) for obj in annos], dtype=torch.int64)
    if any("segmentation" in obj for obj in annos):
        segmentations = [obj.get("segmentation", []) for obj in annos]
        target.gt_masks = _to_masks(segmentations, image_size, mask_format)
    if annos and "keypoints" in annos[0]:
        target.gt_keypoints = Keypoints(np.stack([_points(obj) for obj in annos]))
    return target


def _points(annotation: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(annotation.get("keypoints", []), dtype=np.float64).reshape(-1, 3)


def _to_masks(
    segmentations: list[Any], image_size: tuple[int, int], mask_format: str
) -> PolygonMasks | BitMasks:
    if mask_format == "polygon":
        try:
            return PolygonMasks(segmentations)
        except ValueError as e:
            raise ValueError(
                "Failed to use mask_format=='polygon' from the given annotations! "
                "Use mask_format='bitmask' for masks that are not polygons."
            ) from e
    assert mask_format == "bitmask", f"mask_format is polygon or bitmask, not {mask_format!r}."
    masks = [_to_bitmap(segmentation, image_size) for segmentation in segmentations]
    return BitMasks(torch.stack([torch.from_numpy(np.ascontiguousarray(m)) for m in masks]))


def _to_bitmap(segmentation: Any, image_size: tuple[int, int]) -> np.ndarray:
    """(H, W) from polygons, run lengths or a bitmap."""
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        return _decode(segmentation).astype(bool)
    if isinstance(segmentation, np.ndarray):
        assert segmentation.ndim == 2, (
            f"Expect segmentation of 2 dimensions, got {segmentation.ndim}."
        )
        return segmentation.astype(bool)
    raise ValueError(
        f"Cannot convert segmentation of type '{type(segmentation)}' to BitMasks! Supported "
        "types are: polygons as list[list[float] or ndarray], COCO-style RLE as a dict, or a "
        "binary segmentation mask in a 2D numpy array of shape HxW."
    )


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Any:
    """Leave out objects that have no box or no mask left.

    Args:
        instances: with gt_boxes, perhaps gt_masks.
        by_box: leave out boxes with a side of at most ``box_threshold`` pixels.
        by_mask: leave out empty masks.
        box_threshold: in pixels.
        return_mask: also return which ones are kept, (N,) bool.
    """
    assert by_box or by_mask, "Give something to filter by: by_box or by_mask."
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    return (instances[keep], keep) if return_mask else instances[keep]


def create_keypoint_hflip_indices(dataset_names: str | Sequence[str]) -> list[int]:
    """Where each key point goes when an image is mirrored.

    Args:
        dataset_names: datasets with the same keypoint_names and keypoint_flip_map.
    """
    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    check_metadata_consistency("keypoint_names", names)
    check_metadata_consistency("keypoint_flip_map", names)
    metadata = MetadataCatalog.get(names[0])
    flip = dict(metadata.keypoint_flip_map)
    flip.update({right: left for left, right in flip.items()})
    return [metadata.keypoint_names.index(flip.get(n, n)) for n in metadata.keypoint_names]


def get_fed_loss_cls_weights(
    dataset_names: str | Sequence[str], freq_weight_power: float = 1.0
) -> torch.Tensor:
    """How often each class is sampled in the federated loss (Zhou et al., 2021).

    Args:
        dataset_names: datasets with the same class_image_count in their metadata; those of
            LVIS have it once they are loaded, which is done here if need be.
        freq_weight_power: power of the number of images that have the class.

    Returns:
        (K,) float tensor.
    """
    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    for name in names:
        if name in DatasetCatalog and MetadataCatalog.get(name).get("class_image_count") is None:
            DatasetCatalog.get(name)  # what is counted is known once the annotations are read
    check_metadata_consistency("class_image_count", names)
    counts = sorted(MetadataCatalog.get(names[0]).class_image_count, key=lambda x: x["id"])
    frequency = torch.tensor([x["image_count"] for x in counts], dtype=torch.float32)
    return frequency**freq_weight_power


def gen_crop_transform_with_instance(
    crop_size: Sequence[int], image_size: Sequence[int], instance: Mapping[str, Any]
) -> T.Transform:
    """A random crop that has the center of the object inside.

    Args:
        crop_size: (h, w); made smaller where the image is.
        image_size: (h, w).
        instance: annotation with bbox and bbox_mode.

    Raises:
        AssertionError: the center of the object is outside of the image.
    """
    crop = np.minimum(np.asarray(crop_size, dtype=np.int64), image_size)
    x0, y0, x1, y1 = get_bbox(instance)
    center = np.array(((y0 + y1) / 2, (x0 + x1) / 2))
    size = np.asarray(image_size, dtype=np.int64)
    assert (size >= center).all() and (center >= 0).all(), (
        f"The center of the annotation's box, (x, y) = {tuple(center[::-1])}, is outside of the "
        f"image of (height, width) = {tuple(image_size)}!"
    )
    lowest = np.maximum(np.ceil(center).astype(np.int64) - crop, 0)
    highest = np.minimum(np.floor(center).astype(np.int64), size - crop)
    top = int(np.random.randint(lowest[0], highest[0] + 1))
    left = int(np.random.randint(lowest[1], highest[1] + 1))
    return T.CropTransform(left, top, int(crop[1]), int(crop[0]), int(size[1]), int(size[0]))


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Check that the datasets have the same metadata under ``key``.

    Raises:
        AttributeError: one of them has none.
        ValueError: they differ.
        AssertionError: no names.
    """
    if not dataset_names:
        raise AssertionError(f"No dataset to take '{key}' from.")
    first = getattr(MetadataCatalog.get(dataset_names[0]), key)
    for name in dataset_names[1:]:
        value = getattr(MetadataCatalog.get(name), key)
        if value != first:
            logger.error(f"Metadata '{key}' for dataset '{name}' is {value}")
            logger.error(f"Metadata '{key}' for dataset '{dataset_names[0]}' is {first}")
            raise ValueError(
                f"Datasets '{dataset_names[0]}' and '{name}' have different metadata '{key}'!"
            )


def build_augmentation(cfg: Any, is_train: bool) -> list[T.Augmentation | T.Transform]:
    """The resize and the flip of a yacs config of detectron2.

    Args:
        cfg: has INPUT.MIN_SIZE_TRAIN and the like.
        is_train: whether to take the values for training.
    """
    if not is_train:
        return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice")]
    resize = T.ResizeShortestEdge(
        cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    )
    flip = cfg.INPUT.RANDOM_FLIP
    if flip == "none":
        return [resize]
    return [resize, T.RandomFlip(horizontal=flip == "horizontal", vertical=flip != "horizontal")]


build_transform_gen = build_augmentation
