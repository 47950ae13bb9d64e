"""Data sets, their checks, and the mapper that turns records into training targets."""

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
