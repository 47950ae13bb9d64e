from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T

from detrex.data.dataset_mappers import (
    COCOInstanceNewBaselineDatasetMapper,
    MaskFormerSemanticDatasetMapper,
    coco_instance_transform_gen,
    coco_panoptic_transform_gen,
    maskformer_instance_transform_gen,
    maskformer_semantic_transform_gen,
)
from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    convert_coco_poly_to_mask,
)
from detrex.data.transforms import ColorAugSSDTransform

SCALES = [256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768, 819, 870, 921, 972, 1024]


def attributes(step, *names):
    return {name: getattr(step, name) for name in names}


@pytest.mark.parametrize("build", [coco_instance_transform_gen, coco_panoptic_transform_gen])
def test_large_scale_jitter(build):
    flip, resize, crop = build(640, min_scale=0.2, max_scale=1.5, random_flip="vertical")
    assert isinstance(flip, T.RandomFlip) and flip.vertical and not flip.horizontal
    assert isinstance(resize, T.ResizeScale)
    assert attributes(resize, "min_scale", "max_scale", "target_height", "target_width") == {
        "min_scale": 0.2,
        "max_scale": 1.5,
        "target_height": 640,
        "target_width": 640,
    }
    assert isinstance(crop, T.FixedSizeCrop) and tuple(crop.crop_size) == (640, 640) and crop.pad
    assert [type(s) for s in build(random_flip="none")] == [T.ResizeScale, T.FixedSizeCrop]
    assert build()[0].horizontal and build()[1].target_width == 1024
    with pytest.raises(ValueError, match="not 'diagonal'"):
        build(random_flip="diagonal")
    with pytest.raises(ValueError, match="ResizeShortestEdge"):
        build(is_train=False)


def test_jitter_in_a_mapper(scene):
    np.random.seed(0)
    mapper = COCOInstanceNewBaselineDatasetMapper(
        augmentation=coco_instance_transform_gen(image_size=20), is_train=True
    )
    for _ in range(20):
        out = mapper(scene.instances)
        assert out["image"].shape == (3, 20, 20) and out["padding_mask"].shape == (20, 20)
        assert not out["instances"].gt_masks[:, out["padding_mask"]].any()


def test_semantic_augmentation():
    crop_params = {"crop_type": "absolute", "crop_size": [64, 32], "single_category_max_area": 0.75}
    resize, crop, colors, flip = maskformer_semantic_transform_gen(
        min_size_train=[60, 70],
        max_size_train=200,
        min_size_train_sampling="range",
        enabled_crop=True,
        crop_params=crop_params,
        color_aug_ssd=True,
        img_format="BGR",
    )
    assert isinstance(resize, T.ResizeShortestEdge) and resize.max_size == 200
    assert list(resize.short_edge_length) == [60, 70] and resize.is_range
    assert isinstance(crop, T.RandomCrop_CategoryAreaConstraint)
    assert attributes(crop.crop_aug, "crop_type", "crop_size") == {
        "crop_type": "absolute",
        "crop_size": (64, 32),
    }
    assert crop.single_category_max_area == 0.75 and crop.ignored_category == 255
    assert isinstance(colors, ColorAugSSDTransform) and not colors.is_rgb
    assert isinstance(flip, T.RandomFlip)
    crop = maskformer_semantic_transform_gen(crop_params={**crop_params, "ignored_category": 65})[1]
    assert crop.ignored_category == 65


def test_what_is_switched_off_is_left_out():
    for build in (maskformer_semantic_transform_gen, maskformer_instance_transform_gen):
        steps = build(enabled_crop=False, color_aug_ssd=False)
        assert [type(s) for s in steps] == [T.ResizeShortestEdge, T.RandomFlip]
        assert [type(s) for s in build(is_train=False)] == [T.ResizeShortestEdge]


def test_defaults_of_ade20k():
    resize, crop, colors, _ = maskformer_semantic_transform_gen()
    assert list(resize.short_edge_length) == SCALES and resize.max_size == 2048
    assert not resize.is_range and tuple(crop.crop_aug.crop_size) == (512, 512)
    assert colors.is_rgb


def test_instance_augmentation():
    resize, crop, colors, flip = maskformer_instance_transform_gen(
        min_size_train=(60, 70),
        max_size_train=200,
        min_size_train_sampling="choice",
        enabled_crop=True,
        crop_type="relative",
        crop_size=[0.5, 0.25],
        color_aug_ssd=True,
        img_format="RGB",
    )
    assert list(resize.short_edge_length) == [60, 70] and not resize.is_range
    assert isinstance(crop, T.RandomCrop)
    assert crop.crop_type == "relative" and tuple(crop.crop_size) == (0.5, 0.25)
    assert isinstance(colors, ColorAugSSDTransform) and isinstance(flip, T.RandomFlip)


def test_crops_keep_below_the_largest_area(scene):
    """The crop sees the labels: of two classes in halves none has three quarters."""
    np.random.seed(0)
    steps = maskformer_semantic_transform_gen(
        min_size_train=24,
        crop_params={
            "crop_type": "absolute",
            "crop_size": (16, 16),
            "single_category_max_area": 0.75,
        },
        color_aug_ssd=False,
    )
    mapper = MaskFormerSemanticDatasetMapper(augmentation=steps, size_divisibility=16)
    for _ in range(30):
        out = mapper(scene.semantic)
        assert out["image"].shape == (3, 16, 16)
        labels = out["sem_seg"][out["sem_seg"] != 255]
        assert labels.bincount().max() < 0.75 * len(labels)


def test_polygons_to_masks():
    square = np.array([2.0, 1, 6, 1, 6, 4, 2, 4])
    masks = convert_coco_poly_to_mask([[square], [square + 1, square]], 8, 10)
    expected = torch.zeros(2, 8, 10, dtype=torch.bool)
    expected[:, 1:4, 2:6] = True
    expected[1, 2:5, 3:7] = True
    assert torch.equal(masks, expected)
    assert convert_coco_poly_to_mask([], 8, 10).shape == (0, 8, 10)
