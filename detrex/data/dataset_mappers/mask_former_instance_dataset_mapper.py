"""Instance segmentation as mask classification (MaskFormer, arXiv:2107.06278)."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import transforms as T

from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    COCOInstanceNewBaselineDatasetMapper,
)
from detrex.data.dataset_mappers.mask_former_semantic_dataset_mapper import colors_and_flip

__all__ = ["MaskFormerInstanceDatasetMapper", "build_transform_gen"]


def build_transform_gen(
    min_size_train: int | Sequence[int] = 800,
    max_size_train: int = 1333,
    min_size_train_sampling: str = "choice",
    enabled_crop: bool = False,
    crop_type: str = "relative_range",
    crop_size: Sequence[float] = (0.9, 0.9),
    color_aug_ssd: bool = False,
    img_format: str = "RGB",
    is_train: bool = True,
) -> list[T.Augmentation | T.Transform]:
    """MaskFormer's augmentation of instances: resize, crop, change colors, mirror half.

    Args:
        min_size_train: lengths of the short edge, see ``ResizeShortestEdge``.
        max_size_train: the longest allowed long edge.
        min_size_train_sampling: "choice" or "range".
        enabled_crop: whether to crop.
        crop_type: see ``RandomCrop``.
        crop_size: see ``RandomCrop``.
        color_aug_ssd: whether to change colors as SSD's training does.
        img_format: channel order of the images, "RGB" or "BGR".
        is_train: False leaves only the resizing.
    """
    resize = T.ResizeShortestEdge(min_size_train, max_size_train, min_size_train_sampling)
    if not is_train:
        return [resize]
    crop = [T.RandomCrop(crop_type, tuple(crop_size))] if enabled_crop else []
    return [resize, *crop, *colors_and_flip(color_aug_ssd, img_format)]


class MaskFormerInstanceDatasetMapper(COCOInstanceNewBaselineDatasetMapper):
    """Objects with masks, from records with ``annotations``; other names for the arguments.

    Args:
        is_train: see ``MaskDatasetMapper``.
        augmentations: detectron2 augmentations or transforms, one after the other.
        image_format: see ``MaskDatasetMapper``.
        size_divisibility: see ``MaskDatasetMapper``.
    """

    def __init__(
        self,
        is_train: bool = True,
        augmentations: Sequence[T.Augmentation | T.Transform] = (),
        image_format: str = "RGB",
        size_divisibility: int = -1,
    ) -> None:
        super().__init__(is_train, augmentations, image_format, size_divisibility)
