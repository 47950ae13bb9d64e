"""What all mappers for segmentation do: read, augment, pad, and make ``Instances`` with masks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

from detrex.data.dataset_mappers.segments import Segments, read_labels
from detrex.data.images import read_image

__all__ = ["MaskDatasetMapper"]

_PAD_VALUE = 128  # the gray that FixedSizeCrop pads with


class MaskDatasetMapper:
    """Base of the mappers for mask classification (MaskFormer, arXiv:2107.06278).

    A subclass says where its segments come from (``segments``), and whether labels per pixel are
    read (``reads_sem_seg``).

    Calling it on a dataset dict, which stays as it is, gives a new one with

    * ``image``: uint8 tensor (3, H, W);
    * ``padding_mask``: bool (H, W), true where augmentation or ``size_divisibility`` padded;
    * in training ``instances``: ``gt_classes`` (N), int64; ``gt_masks`` (N, H, W), a bool tensor;
      ``gt_boxes``, around what is seen of the masks. Segments of which nothing is seen are left
      out, so N may be 0;
    * in training ``sem_seg``: int64 (H, W), if the mapper reads it;
    * what else the record has, without ``annotations`` and what the targets were made of.

    Args:
        is_train: False leaves the targets away.
        augmentation: detectron2 augmentations or transforms, one after the other.
        image_format: channel order the model expects, "RGB" or "BGR".
        size_divisibility: both sides are padded to multiples of it, to the right and below; not
            if it is not positive. With a number no smaller than what the augmentation gives, all
            images have that size.
        ignore_label: of pixels of ``sem_seg`` that have no class; those of padding get it.
    """

    reads_sem_seg = False

    def __init__(
        self,
        is_train: bool = True,
        augmentation: Sequence[T.Augmentation | T.Transform] = (),
        image_format: str = "RGB",
        size_divisibility: int = -1,
        ignore_label: int = 255,
    ) -> None:
        self.is_train = is_train
        self.augmentation = T.AugmentationList(list(augmentation))
        self.image_format = image_format
        self.size_divisibility = size_divisibility
        self.ignore_label = ignore_label

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """
        Raises:
            OSError: the image or its labels do not exist or cannot be decoded.
            ValueError: the record lacks what the mapper trains on, or sizes do not agree.
        """
        record = copy.deepcopy(dataset_dict)
        aug_input = T.AugInput(
            read_image(record, self.image_format), sem_seg=self._read_sem_seg(record)
        )
        transforms = self.augmentation(aug_input)
        # PyTorch has no tensors of negative stride, which flips leave behind.
        image = torch.from_numpy(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))
        record["image"] = self._pad(image, _PAD_VALUE)
        whole = np.ones((record["height"], record["width"]), dtype=np.uint8)
        padding = torch.from_numpy(transforms.apply_segmentation(whole) != 1)
        record["padding_mask"] = self._pad(padding, True)
        if self.is_train:
            self._add_targets(record, transforms, aug_input.sem_seg, padding)
        record.pop("annotations", None)
        return record

    def segments(
        self,
        record: dict[str, Any],
        transforms: T.TransformList,
        image_size: tuple[int, int],
        sem_seg: Tensor | None,
    ) -> Segments:
        """Classes (N,) and masks (N, h, w) of the augmented image, before it is padded.

        Args:
            record: to take annotations out of.
            transforms: what was done to the image.
            image_size: (h, w) after that.
            sem_seg: labels (h, w) after that, if the mapper reads them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define segments().")

    def _read_sem_seg(self, record: dict[str, Any]) -> np.ndarray | None:
        """Labels (H, W) of a type that all transforms take."""
        if not (self.is_train and self.reads_sem_seg):
            return None
        labels = read_labels(record, "sem_seg_file_name")
        return labels if labels.dtype == np.uint8 else labels.astype(np.float64)

    def _add_targets(
        self,
        record: dict[str, Any],
        transforms: T.TransformList,
        labels: np.ndarray | None,
        padding: Tensor,
    ) -> None:
        sem_seg = None
        if labels is not None:
            sem_seg = torch.from_numpy(labels.astype(np.int64))
            sem_seg[padding] = self.ignore_label
            record["sem_seg"] = self._pad(sem_seg, self.ignore_label)
        height, width = padding.shape
        classes, masks = self.segments(record, transforms, (height, width), sem_seg)
        record["instances"] = _instances(classes, self._pad(masks, False))

    def _pad(self, values: Tensor, value: int) -> Tensor:
        """``values`` (..., h, w) with sides that are multiples of ``size_divisibility``."""
        if self.size_divisibility <= 0:
            return values
        below, right = (-side % self.size_divisibility for side in values.shape[-2:])
        return F.pad(values, (0, right, 0, below), value=value)


def _instances(classes: Tensor, masks: Tensor) -> Instances:
    """The segments (N, H, W) of which something is seen."""
    instances = Instances((masks.shape[1], masks.shape[2]))
    instances.gt_classes = classes
    bitmasks = BitMasks(masks)
    instances.gt_boxes = bitmasks.get_bounding_boxes() if len(masks) else Boxes(torch.zeros(0, 4))
    instances.gt_masks = bitmasks
    instances = utils.filter_empty_instances(instances)
    # Criteria of mask classification take tensors.
    instances.gt_masks = instances.gt_masks.tensor
    return instances
