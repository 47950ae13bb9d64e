"""Semantic segmentation as mask classification (MaskFormer, arXiv:2107.06278)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from torch import Tensor

from detrex.data.dataset_mappers.mask_dataset_mapper import MaskDatasetMapper
from detrex.data.dataset_mappers.segments import Segments, semantic_segments

__all__ = ["MaskFormerSemanticDatasetMapper", "build_transform_gen"]

_SCALES = tuple(int(512 * factor / 10) for factor in range(5, 21))  # half to twice the crop's side
_CROP = {"crop_type": "absolute", "crop_size": (512, 512), "single_category_max_area": 1.0}


def build_transform_gen(
    min_size_train: int | Sequence[int] = _SCALES,
    max_size_train: int = 2048,
    min_size_train_sampling: str = "choice",
    enabled_crop: bool = True,
    crop_params: Mapping[str, Any] = _CROP,
    color_aug_ssd: bool = True,
    img_format: str = "RGB",
    is_train: bool = True,
) -> list[T.Augmentation | T.Transform]:
    """MaskFormer's augmentation: resize, crop, change colors, mirror half of the images.

    The defaults are those for ADE20K.

    Args:
        min_size_train: lengths of the short edge, see ``ResizeShortestEdge``.
        max_size_train: the longest allowed long edge.
        min_size_train_sampling: "choice" or "range".
        enabled_crop: whether to crop.
        crop_params: of ``RandomCrop_CategoryAreaConstraint``: ``crop_type``, ``crop_size``,
            ``single_category_max_area`` and ``ignored_category`` (255 unless given).
        color_aug_ssd: whether to change colors as SSD's training does.
        img_format: channel order of the images, "RGB" or "BGR".
        is_train: False leaves only the resizing.
    """
    resize = T.ResizeShortestEdge(min_size_train, max_size_train, min_size_train_sampling)
    if not is_train:
        return [resize]
    crop = []
    if enabled_crop:
        params = {"ignored_category": 255, **crop_params}
        params["crop_size"] = tuple(params["crop_size"])
        crop = [T.RandomCrop_CategoryAreaConstraint(**params)]
    return [resize, *crop, *colors_and_flip(color_aug_ssd, img_format)]


def colors_and_flip(color_aug_ssd: bool, img_format: str) -> list[T.Augmentation | T.Transform]:
    """What MaskFormer's augmentations end with."""
    # The full detectron2 imports all of PointRend for this one.
    from detrex.data.transforms import ColorAugSSDTransform

    colors = [ColorAugSSDTransform(img_format=img_format)] if color_aug_ssd else []
    return [*colors, T.RandomFlip()]


class MaskFormerSemanticDatasetMapper(MaskDatasetMapper):
    """One segment per class in the image, from records with ``sem_seg_file_name``.

    What it gives is said at ``MaskDatasetMapper``, and so are the arguments that are not here.

    Args:
        meta: metadata of the data set, whose ``ignore_label`` counts; without one, 255.
    """

    reads_sem_seg = True

    def __init__(
        self,
        is_train: bool = True,
        meta: Metadata | None = None,
        augmentation: Sequence[T.Augmentation | T.Transform] = (),
        image_format: str = "RGB",
        size_divisibility: int = -1,
    ) -> None:
        ignore_label = 255 if meta is None else meta.get("ignore_label", 255)
        super().__init__(is_train, augmentation, image_format, size_divisibility, ignore_label)

    def segments(
        self,
        record: dict[str, Any],
        transforms: T.TransformList,
        image_size: tuple[int, int],
        sem_seg: Tensor | None,
    ) -> Segments:
        """The classes in ``sem_seg``, but for the label to ignore."""
        assert sem_seg is not None, "The labels have not been read."
        return semantic_segments(sem_seg, self.ignore_label)
