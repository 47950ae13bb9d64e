"""COCO's panoptic format under large-scale jitter (arXiv:2012.07177), as Mask2Former trains."""

from __future__ import annotations

from typing import Any

from detectron2.data import transforms as T
from torch import Tensor

from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    build_transform_gen,
)
from detrex.data.dataset_mappers.mask_dataset_mapper import MaskDatasetMapper
from detrex.data.dataset_mappers.segments import Segments, panoptic_segments

__all__ = ["COCOPanopticNewBaselineDatasetMapper", "build_transform_gen"]


class COCOPanopticNewBaselineDatasetMapper(MaskDatasetMapper):
    """Things and stuff as segments, from records with ``pan_seg_file_name`` and
    ``segments_info``.

    What it gives is said at ``MaskDatasetMapper``; ``image_format`` and ``augmentation`` are
    explained there, too.
    """

    def segments(
        self,
        record: dict[str, Any],
        transforms: T.TransformList,
        image_size: tuple[int, int],
        sem_seg: Tensor | None,
    ) -> Segments:
        """The segments of ``segments_info`` that are no crowds."""
        return panoptic_segments(record, transforms)
