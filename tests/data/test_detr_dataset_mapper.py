from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from detrex.data import DetrDatasetMapper, coco_dataset


@pytest.fixture
def record(tmp_path):
    """An image of 40 x 30 pixels with two objects and a crowd."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return {
        "file_name": str(tmp_path / "a.png"),
        "image_id": 5,
        "height": 30,
        "width": 40,
        "annotations": [
            _object([4, 6, 10, 20], 1),
            _object([30, 2, 8, 5], 0),
            {**_object([0, 0, 40, 30], 0), "iscrowd": 1},
        ],
    }


def _object(bbox, category):
    return {"bbox": bbox, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category, "iscrowd": 0}


def _pixels(record):
    return np.asarray(Image.open(record["file_name"]))


def test_image_and_targets_without_augmentation(record):
    before = copy.deepcopy(record)
    out = DetrDatasetMapper([T.NoOpTransform()])(record)
    assert record == before
    np.testing.assert_array_equal(out["image"].numpy(), _pixels(record).transpose(2, 0, 1))
    assert out["image"].dtype == torch.uint8
    instances = out["instances"]
    assert instances.image_size == (30, 40)
    expected = torch.tensor([[4.0, 6, 14, 26], [30, 2, 38, 7]])
    torch.testing.assert_close(instances.gt_boxes.tensor, expected)
    assert instances.gt_classes.tolist() == [1, 0] and instances.gt_classes.dtype == torch.int64
    assert not instances.has("gt_masks") and "annotations" not in out
    assert {k: out[k] for k in ("file_name", "image_id", "height", "width")} == {
        k: record[k] for k in ("file_name", "image_id", "height", "width")
    }


def test_boxes_follow_the_image(record):
    flip = T.RandomFlip(prob=1.0)
    resize = T.ResizeShortestEdge(60, max_size=1000)
    out = DetrDatasetMapper([flip, resize])(record)
    assert out["image"].shape == (3, 60, 80)
    expected = torch.tensor([[40.0 - 14, 6, 40 - 4, 26], [40 - 38, 2, 40 - 30, 7]]) * 2
    torch.testing.assert_close(out["instances"].gt_boxes.tensor, expected)


def test_bgr(record):
    out = DetrDatasetMapper([], img_format="BGR")(record)
    np.testing.assert_array_equal(
        out["image"].numpy(), _pixels(record)[..., ::-1].transpose(2, 0, 1)
    )


def test_evaluation_takes_the_plain_pipeline_and_no_targets(record):
    crop = [T.CropTransform(0, 0, 5, 5)]
    mapper = DetrDatasetMapper([], augmentation_with_crop=crop, is_train=False)
    for _ in range(8):
        out = mapper(record)
        assert out["image"].shape == (3, 30, 40)
        assert "instances" not in out and "annotations" not in out


def test_each_pipeline_is_taken_half_of_the_time(record):
    np.random.seed(0)
    mapper = DetrDatasetMapper([], augmentation_with_crop=[T.CropTransform(0, 0, 16, 16)])
    cropped = sum(mapper(record)["image"].shape == (3, 16, 16) for _ in range(400))
    assert abs(cropped - 200) < 4 * 10  # four standard deviations of 400 fair coins


def test_crops_clip_boxes_and_drop_what_is_outside(record):
    out = DetrDatasetMapper([T.CropTransform(0, 0, 10, 16)])(record)
    torch.testing.assert_close(out["instances"].gt_boxes.tensor, torch.tensor([[4.0, 6, 10, 16]]))
    assert out["instances"].gt_classes.tolist() == [1]


@pytest.mark.parametrize("mask_on", [False, True])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_images_without_objects(record, mask_on, mask_format):
    del record["annotations"][:2]
    instances = DetrDatasetMapper([], mask_on=mask_on, mask_format=mask_format)(record)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.shape == (0,) and instances.gt_classes.dtype == torch.int64
    assert instances.has("gt_masks") == mask_on
    assert len(instances) == 0


def test_masks(record):
    square = [4.0, 6, 14, 6, 14, 26, 4, 26]
    del record["annotations"][1]
    record["annotations"][0]["segmentation"] = [square]
    flip = [T.RandomFlip(prob=1.0)]
    polygons = DetrDatasetMapper(flip, mask_on=True)(record)["instances"].gt_masks
    flipped = [36.0, 6, 26, 6, 26, 26, 36, 26]
    np.testing.assert_allclose(polygons.polygons[0][0], flipped)
    bits = DetrDatasetMapper(flip, mask_on=True, mask_format="bitmask")(record)
    mask = bits["instances"].gt_masks.tensor[0].numpy()
    assert mask.shape == (30, 40)
    assert mask[6:26, 26:36].all() and mask.sum() == 200


def test_masks_that_are_missing_are_named(record):
    with pytest.raises(ValueError, match=r"annotation number 0 of .*a\.png has no segmentation"):
        DetrDatasetMapper([], mask_on=True)(record)


def test_boxes_without_area_are_left_out_with_a_warning(record, caplog):
    record["annotations"][0]["bbox"] = [4, 6, 0, 20]
    mapper = DetrDatasetMapper([])
    instances = mapper(record)["instances"]
    assert instances.gt_classes.tolist() == [0]
    assert "annotation number 0 of" in caplog.text and "a.png" in caplog.text
    record["annotations"][0]["bbox"] = [4, 6, float("nan"), 20]
    assert len(mapper(record)["instances"]) == 1
    for _ in range(20):
        mapper(record)
    assert len(caplog.records) == 10  # and no flood
    assert "10 such so far; no more are reported" in caplog.records[-1].message


@pytest.mark.parametrize("bbox", [[50, 5, 10, 10], [5, -20, 10, 15], [40, 0, 5, 5]])
def test_boxes_outside_the_image_are_left_out_with_a_warning(record, caplog, bbox):
    record["annotations"][1] = _object(bbox, 0)
    out = DetrDatasetMapper([T.NoOpTransform()])(record)
    assert out["instances"].gt_classes.tolist() == [1]
    assert "annotation number 1 of" in caplog.text and "has no area in it" in caplog.text


def test_pixels_that_an_augmentation_has_broken_are_named(record):
    class Broken(T.NoOpTransform):
        def apply_image(self, image):
            image = image.astype(np.float32)
            image[3, 4] = np.nan
            return image

    with pytest.raises(ValueError, match=r"a\.png has pixels that are NaN or infinite"):
        DetrDatasetMapper([Broken()])(record)


def test_class_ids_out_of_range_are_named(record):
    DetrDatasetMapper([], num_classes=2)(record)
    with pytest.raises(ValueError, match=r"number 0 of .*a\.png has class 1.*below 1"):
        DetrDatasetMapper([], num_classes=1)(record)
    record["annotations"][1]["category_id"] = -1
    with pytest.raises(ValueError, match=r"number 1 of .* has class -1"):
        DetrDatasetMapper([])(record)


def test_unreadable_images_are_named(record, tmp_path):
    mapper = DetrDatasetMapper([])
    path = tmp_path / "a.png"
    content = path.read_bytes()
    for broken in (content[:200], b"<html>404</html>"):
        path.write_bytes(broken)
        with pytest.raises(OSError, match=r"a\.png cannot be read"):
            mapper(record)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png does not exist"):
        mapper(record)


def test_grayscale_and_rotated_files_become_upright_rgb(record, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    lying = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(40, 30).astype(np.uint8))
    lying.save(tmp_path / "a.png", exif=exif)
    out = DetrDatasetMapper([])(record)
    upright = np.rot90(np.asarray(lying), -1)
    np.testing.assert_array_equal(out["image"].numpy(), np.stack([upright] * 3))


def test_from_a_config_through_a_loader(coco, write):
    json_file, root = write(coco)
    loader = L(build_detection_train_loader)(
        dataset=L(coco_dataset)(json_file=json_file, image_root=root),
        mapper=L(DetrDatasetMapper)(
            augmentation=[L(T.RandomFlip)(), L(T.ResizeShortestEdge)(short_edge_length=[24, 32])],
            augmentation_with_crop=[
                L(T.ResizeShortestEdge)(short_edge_length=[40], sample_style="choice"),
                L(T.RandomCrop)(crop_type="absolute_range", crop_size=[10, 20]),
            ],
        ),
        total_batch_size=2,
        num_workers=0,
    )
    batches = iter(instantiate(loader))
    seen = set()
    for _ in range(12):
        for item in next(batches):
            seen.add(item["image_id"])
            height, width = item["image"].shape[1:]
            boxes = item["instances"].gt_boxes.tensor
            assert item["instances"].image_size == (height, width)
            assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    assert seen == {10, 11, 12}  # the image without objects too
