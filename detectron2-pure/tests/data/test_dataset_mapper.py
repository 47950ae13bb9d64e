"""detectron2's standard mapper."""

import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode
from PIL import Image


@pytest.fixture
def record(tmp_path):
    """An image of 20 x 40 with two objects and a crowd."""
    pixels = np.random.RandomState(0).randint(0, 255, (20, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray((pixels[:, :, 0] > 100).astype(np.uint8)).save(tmp_path / "labels.png")
    box = {"bbox_mode": BoxMode.XYWH_ABS}
    square = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]]
    return {
        "file_name": str(tmp_path / "a.png"),
        "image_id": 4,
        "height": 20,
        "width": 40,
        "annotations": [
            {**box, "bbox": [2, 2, 10, 10], "category_id": 0, "segmentation": square, "iscrowd": 0},
            {**box, "bbox": [30, 5, 8, 8], "category_id": 1},
            {**box, "bbox": [0, 0, 40, 20], "category_id": 1, "iscrowd": 1},
        ],
    }


def mapper(is_train=True, augmentations=(), image_format="RGB", **kwargs):
    return DatasetMapper(
        is_train, augmentations=list(augmentations), image_format=image_format, **kwargs
    )


def test_training(record):
    before = copy.deepcopy(record)
    out = mapper(augmentations=[T.HFlipTransform(40), T.Resize((40, 80))])(record)
    assert record == before
    assert set(out) == {"file_name", "image_id", "height", "width", "image", "instances"}
    assert (out["height"], out["width"]) == (20, 40)
    assert out["image"].shape == (3, 40, 80) and out["image"].dtype == torch.uint8
    instances = out["instances"]
    assert instances.image_size == (40, 80) and not instances.has("gt_masks")
    torch.testing.assert_close(
        instances.gt_boxes.tensor, torch.tensor([[56.0, 4, 76, 24], [4, 10, 20, 26]])
    )
    assert instances.gt_classes.tolist() == [0, 1]


def test_image_is_what_read_image_gives(record):
    for image_format in ("RGB", "BGR", "L"):
        out = mapper(image_format=image_format)(record)["image"]
        expected = utils.read_image(record["file_name"], image_format).transpose(2, 0, 1)
        np.testing.assert_array_equal(out.numpy(), expected)


def test_inference_has_no_annotations(record):
    out = mapper(is_train=False)(record)
    assert set(out) == {"file_name", "image_id", "height", "width", "image"}


def test_image_without_objects(record):
    record["annotations"] = []
    instances = mapper(use_instance_mask=True)(record)["instances"]
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)


def test_objects_that_are_cropped_away(record):
    out = mapper(augmentations=[T.CropTransform(20, 0, 20, 20)])(record)
    assert out["instances"].gt_classes.tolist() == [1]
    torch.testing.assert_close(out["instances"].gt_boxes.tensor, torch.tensor([[10.0, 5, 18, 13]]))


def test_masks_and_recomputed_boxes(record):
    record["annotations"][1]["segmentation"] = [[30.0, 5, 38, 5, 38, 13]]
    crop = [T.CropTransform(0, 0, 36, 20)]
    plain = mapper(augmentations=crop, use_instance_mask=True)(record)["instances"]
    assert plain.gt_boxes.tensor[1].tolist() == [30, 5, 36, 13]
    tight = mapper(augmentations=crop, use_instance_mask=True, recompute_boxes=True)(record)
    # The triangle's edge from (30, 5) to (38, 13) is at y = 11 where it leaves the crop.
    assert tight["instances"].gt_boxes.tensor[1].tolist() == [30, 5, 36, 11]
    bitmaps = mapper(use_instance_mask=True, instance_mask_format="bitmask")(record)["instances"]
    assert isinstance(bitmaps.gt_masks, BitMasks) and bitmaps.gt_masks.tensor[0].sum() == 100
    with pytest.raises(AssertionError, match="requires instance masks"):
        mapper(recompute_boxes=True)


def test_semantic_segmentation(record, tmp_path):
    record["sem_seg_file_name"] = str(tmp_path / "labels.png")
    expected = utils.read_image(record["sem_seg_file_name"])[:, ::-1]
    for is_train in (True, False):
        out = mapper(is_train, augmentations=[T.HFlipTransform(40)])(record)
        assert "sem_seg_file_name" not in out and out["sem_seg"].dtype == torch.int64
        np.testing.assert_array_equal(out["sem_seg"].numpy(), expected)


def test_bad_images_are_named(record):
    record["height"] = 21
    with pytest.raises(utils.SizeMismatchError, match=r"a.png, got \(40, 20\), expect \(40, 21\)"):
        mapper()(record)
    record["file_name"] += ".gone"
    with pytest.raises(FileNotFoundError, match=r"a.png.gone' does not exist"):
        mapper()(record)


def test_subclass_may_handle_annotations(record):
    class Own(DatasetMapper):
        def _transform_annotations(self, dataset_dict, transforms, image_shape):
            dataset_dict["seen"] = (len(dataset_dict.pop("annotations")), image_shape)

    own = Own(True, augmentations=[T.Resize((10, 10))], image_format="RGB")
    assert own(record)["seen"] == (3, (10, 10))
