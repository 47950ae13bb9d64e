"""Each target of the public detrex's configs in ``detrex.data`` takes the arguments used there."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.utils.registry import locate

from detrex.data.dataset_mappers import (
    MaskFormerSemanticDatasetMapper,
    maskformer_semantic_transform_gen,
)

FILE = Path(__file__).parents[1] / "reference" / "data_arguments.json"
USED = [
    (target, names) for target, calls in json.loads(FILE.read_text()).items() for names in calls
]


@pytest.mark.parametrize(("target", "names"), USED)
def test_arguments(target, names):
    inspect.signature(locate(target)).bind(**dict.fromkeys(names))


# In the order in which the public detrex has them, so that positions mean the same.
ORDER = {
    "coco_instance_new_baseline_dataset_mapper": {
        "COCOInstanceNewBaselineDatasetMapper": "is_train augmentation image_format",
        "build_transform_gen": "image_size min_scale max_scale random_flip is_train",
        "convert_coco_poly_to_mask": "segmentations height width",
    },
    "coco_panoptic_new_baseline_dataset_mapper": {
        "COCOPanopticNewBaselineDatasetMapper": "is_train augmentation image_format",
        "build_transform_gen": "image_size min_scale max_scale random_flip is_train",
    },
    "mask_former_instance_dataset_mapper": {
        "MaskFormerInstanceDatasetMapper": "is_train augmentations image_format size_divisibility",
        "build_transform_gen": "min_size_train max_size_train min_size_train_sampling enabled_crop "
        "crop_type crop_size color_aug_ssd img_format is_train",
    },
    "mask_former_panoptic_dataset_mapper": {
        "MaskFormerPanopticDatasetMapper": "is_train dataset_names augmentations image_format "
        "ignore_label size_divisibility",
    },
    "mask_former_semantic_dataset_mapper": {
        "MaskFormerSemanticDatasetMapper": "is_train meta augmentation image_format "
        "size_divisibility",
        "build_transform_gen": "min_size_train max_size_train min_size_train_sampling enabled_crop "
        "crop_params color_aug_ssd img_format is_train",
    },
}


@pytest.mark.parametrize("module", ORDER)
def test_order_of_arguments(module):
    for name, arguments in ORDER[module].items():
        function = locate(f"detrex.data.dataset_mappers.{module}.{name}")
        names = list(inspect.signature(function).parameters)
        assert names[: len(arguments.split())] == arguments.split()


def test_a_config_as_the_public_detrex_has_them():
    """ADE20K's, of MaskDINO: metadata as an argument, and lists that omegaconf holds."""
    mapper = instantiate(
        L(MaskFormerSemanticDatasetMapper)(
            augmentation=L(maskformer_semantic_transform_gen)(
                min_size_train=[256, 512],
                max_size_train=2048,
                min_size_train_sampling="choice",
                enabled_crop=True,
                crop_params={
                    "crop_type": "absolute",
                    "crop_size": [512, 512],
                    "single_category_max_area": 1.0,
                },
                color_aug_ssd=True,
                img_format="RGB",
            ),
            meta=MetadataCatalog.get("ade20k_sem_seg_train"),
            is_train=True,
            image_format="RGB",
            size_divisibility=512,
        )
    )
    assert (mapper.ignore_label, mapper.size_divisibility, mapper.is_train) == (255, 512, True)
    assert len(mapper.augmentation.augs) == 4
