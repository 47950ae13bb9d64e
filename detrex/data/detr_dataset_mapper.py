"""From a dataset dict to what a detection transformer trains on (DETR, arXiv:2005.12872)."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks

from detrex.data.images import read_image

__all__ = ["DetrDatasetMapper"]

logger = logging.getLogger(__name__)

_MAX_WARNINGS = 10  # per process; the count goes on


class DetrDatasetMapper:
    """Read an image, augment it and build its training targets.

    DETR draws one of two pipelines per image: resizing to one of many scales, or (half of the
    time) resizing, cropping, and resizing again, which shows objects larger than they are.

    Args:
        augmentation: the plain pipeline; detectron2 augmentations or transforms.
        augmentation_with_crop: the second pipeline, taken with probability 0.5; None for never.
        is_train: False leaves the targets away and always takes the plain pipeline.
        mask_on: also give ``gt_masks``.
        img_format: channel order the model expects, "RGB" or "BGR".
        mask_format: "polygon" or "bitmask" (also takes run lengths); only with ``mask_on``.
        num_classes: class ids must lie below it; None checks only that they are not negative.

    Calling it on a dataset dict, which stays as it is, gives a new one with

    * ``image``: uint8 tensor (3, H, W);
    * ``instances`` in training: ``gt_boxes`` (N boxes, absolute xyxy in the augmented image, all
      with an area), ``gt_classes`` (N), ``gt_masks`` when asked for; N may be 0;
    * ``file_name``, ``height``, ``width``, ``image_id`` as they were.
    """

    def __init__(
        self,
        augmentation: Sequence[T.Augmentation | T.Transform],
        augmentation_with_crop: Sequence[T.Augmentation | T.Transform] | None = None,
        is_train: bool = True,
        mask_on: bool = False,
        img_format: str = "RGB",
        mask_format: str = "polygon",
        num_classes: int | None = None,
    ) -> None:
        self.augmentation = T.AugmentationList(list(augmentation))
        self.augmentation_with_crop = (
            None
            if augmentation_with_crop is None
            else T.AugmentationList(list(augmentation_with_crop))
        )
        self.is_train = is_train
        self.mask_on = mask_on
        self.img_format = img_format
        self.mask_format = mask_format
        self.num_classes = num_classes
        self._num_bad_boxes = 0

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """
        Raises:
            OSError: the image does not exist or cannot be decoded.
            ValueError: an annotation's class id is out of range, its mask is missing, or pixels
                are not finite.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = read_image(dataset_dict, self.img_format)
        aug_input = T.AugInput(image)
        transforms = self._choose_augmentation()(aug_input)
        image = aug_input.image
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise ValueError(
                f"image {dataset_dict['file_name']} has pixels that are NaN or infinite after its "
                "augmentation; repair the image or leave that augmentation out."
            )
        # PyTorch has no tensors of negative stride, which flips leave behind.
        dataset_dict["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        annotations = dataset_dict.pop("annotations", [])
        if self.is_train:
            annotations = self._usable(annotations, dataset_dict)
            dataset_dict["instances"] = self._targets(annotations, transforms, image.shape[:2])
        return dataset_dict

    def _choose_augmentation(self) -> T.AugmentationList:
        crop = self.augmentation_with_crop
        if crop is not None and self.is_train and np.random.rand() < 0.5:
            return crop
        return self.augmentation

    def _usable(
        self, annotations: list[dict[str, Any]], dataset_dict: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Annotations to learn from: no crowds, a box that shows some of the image, a known
        class."""
        file_name = dataset_dict["file_name"]
        size = dataset_dict.get("width", math.inf), dataset_dict.get("height", math.inf)
        usable = []
        for index, annotation in enumerate(annotations):
            if annotation.get("iscrowd", 0):
                continue
            self._check_class(annotation["category_id"], index, file_name)
            if self.mask_on and not annotation.get("segmentation"):
                raise ValueError(
                    f"annotation number {index} of {file_name} has no segmentation, which "
                    "mask_on=True needs; add it or set mask_on=False."
                )
            if _has_area(annotation, *size):
                usable.append(annotation)
            else:
                self._warn_of_box(annotation["bbox"], index, file_name)
        return usable

    def _check_class(self, category: int, index: int, file_name: str) -> None:
        if category < 0 or (self.num_classes is not None and category >= self.num_classes):
            below = "" if self.num_classes is None else f" and below {self.num_classes}"
            raise ValueError(
                f"annotation number {index} of {file_name} has class {category}; classes must be "
                f"at least 0{below}."
            )

    def _warn_of_box(self, box: Any, index: int, file_name: str) -> None:
        self._num_bad_boxes += 1
        if self._num_bad_boxes <= _MAX_WARNINGS:
            logger.warning(
                "annotation number %d of %s is left out: its box %s has no area in it (%d such so "
                "far%s)",
                index,
                file_name,
                [float(v) for v in box],
                self._num_bad_boxes,
                "; no more are reported" if self._num_bad_boxes == _MAX_WARNINGS else "",
            )

    def _targets(
        self,
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
        image_size: tuple[int, int],
    ) -> Instances:
        """``annotations`` seen through ``transforms``; what was cropped away is left out."""
        for annotation in annotations:
            annotation.pop("keypoints", None)
            if not self.mask_on:
                annotation.pop("segmentation", None)
        moved = [
            utils.transform_instance_annotations(a, transforms, image_size) for a in annotations
        ]
        instances = utils.annotations_to_instances(moved, image_size, self.mask_format)
        if self.mask_on and not instances.has("gt_masks"):  # no object, so no mask either
            instances.gt_masks = (
                PolygonMasks([])
                if self.mask_format == "polygon"
                else BitMasks(torch.zeros(0, *image_size, dtype=torch.bool))
            )
        return utils.filter_empty_instances(instances)


def _has_area(annotation: dict[str, Any], width: float, height: float) -> bool:
    x0, y0, x1, y1 = BoxMode.convert(
        [float(v) for v in annotation["bbox"]], annotation["bbox_mode"], BoxMode.XYXY_ABS
    )
    finite = all(math.isfinite(v) for v in (x0, y0, x1, y1))
    return finite and min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0)
