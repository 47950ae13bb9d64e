"""Panoptic segmentation as mask classification (MaskFormer, arXiv:2107.06278)."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T

from detrex.data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper import (
    COCOPanopticNewBaselineDatasetMapper,
)

__all__ = ["MaskFormerPanopticDatasetMapper"]


class MaskFormerPanopticDatasetMapper(COCOPanopticNewBaselineDatasetMapper):
    """Things and stuff as segments, and labels per pixel, from records with
    ``pan_seg_file_name``, ``segments_info`` and ``sem_seg_file_name``.

    What it gives is said at ``MaskDatasetMapper``, and so are the arguments that are not here.

    Args:
        dataset_names: a name or several; the ``ignore_label`` of the first one's metadata counts,
            unless ``ignore_label`` is given.
        augmentations: detectron2 augmentations or transforms, one after the other.
        ignore_label: of pixels that have no class; by default the data set's, or else 255.
    """

    reads_sem_seg = True

    def __init__(
        self,
        is_train: bool = True,
        dataset_names: str | Sequence[str] = (),
        augmentations: Sequence[T.Augmentation | T.Transform] = (),
        image_format: str = "RGB",
        ignore_label: int | None = None,
        size_divisibility: int = -1,
    ) -> None:
        names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
        if ignore_label is None:
            ignore_label = MetadataCatalog.get(names[0]).get("ignore_label", 255) if names else 255
        super().__init__(is_train, augmentations, image_format, size_divisibility, ignore_label)
