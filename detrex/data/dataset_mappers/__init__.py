"""Mappers by the names of the public detrex, from dataset dicts to what a model trains on.

They are for segmentation, but for ``DetrDatasetMapper``, and differ in what they read; see
``MaskDatasetMapper`` for what they give. Importing this package registers the data sets of
``detrex.data.datasets``, whose names configs use together with the mappers.
"""

from detrex.data import datasets  # noqa: F401  (registers)
from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    COCOInstanceNewBaselineDatasetMapper,
)
from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    build_transform_gen as coco_instance_transform_gen,
)
from detrex.data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper import (
    COCOPanopticNewBaselineDatasetMapper,
)
from detrex.data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper import (
    build_transform_gen as coco_panoptic_transform_gen,
)
from detrex.data.dataset_mappers.mask_dataset_mapper import MaskDatasetMapper
from detrex.data.dataset_mappers.mask_former_instance_dataset_mapper import (
    MaskFormerInstanceDatasetMapper,
)
from detrex.data.dataset_mappers.mask_former_instance_dataset_mapper import (
    build_transform_gen as maskformer_instance_transform_gen,
)
from detrex.data.dataset_mappers.mask_former_panoptic_dataset_mapper import (
    MaskFormerPanopticDatasetMapper,
)
from detrex.data.dataset_mappers.mask_former_semantic_dataset_mapper import (
    MaskFormerSemanticDatasetMapper,
)
from detrex.data.dataset_mappers.mask_former_semantic_dataset_mapper import (
    build_transform_gen as maskformer_semantic_transform_gen,
)
from detrex.data.detr_dataset_mapper import DetrDatasetMapper

__all__ = [
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "DetrDatasetMapper",
    "MaskDatasetMapper",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerSemanticDatasetMapper",
    "coco_instance_transform_gen",
    "coco_panoptic_transform_gen",
    "maskformer_instance_transform_gen",
    "maskformer_semantic_transform_gen",
]
