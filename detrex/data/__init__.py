"""Data sets, their checks, and the mapper that turns records into training targets.

The mappers for segmentation, by the names of the public detrex, can be imported from here, too.
"""

from importlib import import_module
from typing import Any

from detrex.data.checks import check_dataloaders, check_dataset, check_same_classes, dataset_names
from detrex.data.coco import DatasetError, coco_dataset, coco_dataset_name, register_coco
from detrex.data.detr_dataset_mapper import DetrDatasetMapper

__all__ = [
    "DatasetError",
    "DetrDatasetMapper",
    "check_dataloaders",
    "check_dataset",
    "check_same_classes",
    "coco_dataset",
    "coco_dataset_name",
    "dataset_names",
    "register_coco",
]

_MAPPERS = frozenset(
    {
        "COCOInstanceNewBaselineDatasetMapper",
        "COCOPanopticNewBaselineDatasetMapper",
        "MaskFormerInstanceDatasetMapper",
        "MaskFormerPanopticDatasetMapper",
        "MaskFormerSemanticDatasetMapper",
    }
)


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for, since it registers data sets."""
    if name in _MAPPERS:
        return getattr(import_module("detrex.data.dataset_mappers"), name)
    if name in ("dataset_mappers", "datasets", "transforms"):
        return import_module(f"detrex.data.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.")
