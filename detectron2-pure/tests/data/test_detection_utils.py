"""Reading images and transforming annotations."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    """A 2 x 3 image, left column red, stored losslessly."""
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[:, 0] = (200, 10, 30)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    return str(path), pixels


def test_formats(picture):
    path, pixels = picture
    np.testing.assert_array_equal(utils.read_image(path), pixels)
    np.testing.assert_array_equal(utils.read_image(path, "RGB"), pixels)
    np.testing.assert_array_equal(utils.read_image(path, "BGR"), pixels[:, :, ::-1])
    gray = utils.read_image(path, "L")
    assert gray.shape == (2, 3, 1) and gray.dtype == np.uint8
    luma = 0.299 * 200 + 0.587 * 10 + 0.114 * 30
    assert abs(int(gray[0, 0, 0]) - luma) <= 1 and gray[0, 1, 0] == 0
    yuv = utils.read_image(path, "YUV-BT.601")
    assert yuv[0, 0, 0] == pytest.approx(luma / 255)


@pytest.mark.parametrize("format", ["RGB", "BGR", "YUV-BT.601", "HSV", None])
def test_back_to_rgb(picture, format):
    path, pixels = picture
    image = utils.read_image(path, format)
    # One of 256 steps of hue along six edges of the color cube, each of length 200 - 10.
    close = 6 * 190 / 256 if format == "HSV" else 0
    for given in (image, torch.from_numpy(np.ascontiguousarray(image))):
        back = utils.convert_image_to_rgb(given, format)
        assert back.dtype == np.uint8 and np.abs(back.astype(int) - pixels).max() <= close


def test_gray_to_rgb(picture):
    rgb = utils.convert_image_to_rgb(utils.read_image(picture[0], "L"), "L")
    assert rgb.shape == (2, 3, 3) and (rgb[0, 0] == rgb[0, 0, 0]).all()


def test_palette_images_become_colors(tmp_path, picture):
    path, pixels = picture
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    np.testing.assert_array_equal(utils.read_image(str(tmp_path / "p.png"), "RGB"), pixels)


# EXIF orientation -> what a viewer does to the stored pixels.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_photographs_are_turned_upright(tmp_path, orientation):
    pixels = np.random.RandomState(0).randint(0, 255, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / "a.png")
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(utils.read_image(path, "RGB"), TURNS[orientation](pixels))


def test_broken_exif_does_not_matter(tmp_path):
    pixels = np.full((4, 6, 3), 100, dtype=np.uint8)
    path = str(tmp_path / "a.jpg")
    Image.fromarray(pixels).save(path, exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\xff\x01")
    assert utils.read_image(path).shape == (4, 6, 3)


def test_unreadable_files_are_named(tmp_path, picture):
    with pytest.raises(FileNotFoundError, match=r"Image file '.*nothing.png' does not exist"):
        utils.read_image(str(tmp_path / "nothing.png"))
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(OSError, match=r"Cannot read image file '.*text.jpg'"):
        utils.read_image(str(tmp_path / "text.jpg"), "RGB")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(OSError, match=r"Cannot read image file '.*empty.jpg'"):
        utils.read_image(str(tmp_path / "empty.jpg"), "RGB")
    noise = np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8)
    for kind in ("jpg", "png"):
        path = tmp_path / f"cut.{kind}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        for format in ("RGB", None):
            with pytest.raises(OSError, match=rf"Cannot read image file '.*cut.{kind}'"):
                utils.read_image(str(path), format)


def test_image_size():
    record = {}
    utils.check_image_size(record, np.zeros((4, 6, 3)))
    assert record == {"height": 4, "width": 6}
    utils.check_image_size(record, np.zeros((4, 6)))
    with pytest.raises(utils.SizeMismatchError, match=r"image a.jpg, got \(4, 6\), expect \(6, 4"):
        utils.check_image_size({**record, "file_name": "a.jpg"}, np.zeros((6, 4)))


BOX = {"bbox": [10, 10, 20, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 3}


def test_boxes_are_transformed_and_clipped():
    flip = T.HFlipTransform(100)
    for transforms in (flip, [flip], T.TransformList([flip])):
        annotation = {**BOX, "bbox": [10, 10, 20, 30]}
        out = utils.transform_instance_annotations(annotation, transforms, (50, 100))
        assert out is annotation
        np.testing.assert_array_equal(out["bbox"], [70, 10, 90, 40])
        assert out["bbox_mode"] == BoxMode.XYXY_ABS
    out = utils.transform_instance_annotations(dict(BOX), T.CropTransform(15, 0, 10, 25), (25, 10))
    np.testing.assert_array_equal(out["bbox"], [0, 10, 10, 25])


def test_rotated_input_boxes_get_an_upright_box():
    annotation = {"bbox": [50, 50, 20, 10, 90], "bbox_mode": BoxMode.XYWHA_ABS}
    out = utils.transform_instance_annotations(annotation, T.NoOpTransform(), (100, 100))
    np.testing.assert_allclose(out["bbox"], [45, 40, 55, 60], atol=1e-5)


def test_polygons_are_transformed_and_the_originals_stay():
    polygon = np.array([10.0, 10, 20, 10, 20, 30])
    annotation = {**BOX, "segmentation": [polygon]}
    out = utils.transform_instance_annotations(annotation, T.HFlipTransform(100), (50, 100))
    np.testing.assert_array_equal(out["segmentation"][0], [90, 10, 80, 10, 80, 30])
    np.testing.assert_array_equal(polygon, [10, 10, 20, 10, 20, 30])


def mask_and_rle():
    mask = np.zeros((50, 100), dtype=np.uint8, order="F")
    mask[10:30, 20:40] = 1
    return mask, mask_util.encode(mask)


def test_run_lengths_become_bitmaps():
    mask, rle = mask_and_rle()
    out = utils.transform_instance_annotations(
        {**BOX, "segmentation": rle}, T.HFlipTransform(100), (50, 100)
    )
    np.testing.assert_array_equal(out["segmentation"], mask[:, ::-1])
    with pytest.raises(AssertionError, match="does not fit an image"):
        utils.transform_instance_annotations(
            {**BOX, "segmentation": rle}, T.NoOpTransform(), (40, 100)
        )
    with pytest.raises(ValueError, match=r"Cannot transform segmentation of type.*RLE"):
        utils.transform_instance_annotations(
            {**BOX, "segmentation": 3}, T.NoOpTransform(), (50, 100)
        )


def test_keypoints():
    keypoints = [10, 20, 2, 90, 40, 1, 0, 0, 0]
    annotation = {**BOX, "keypoints": keypoints}
    out = utils.transform_instance_annotations(annotation, T.CropTransform(0, 0, 50, 50), (50, 50))[
        "keypoints"
    ]
    # The second leaves the image and counts as not labeled.
    np.testing.assert_array_equal(out, [[10, 20, 2], [0, 0, 0], [0, 0, 0]])
    flips = T.TransformList([T.HFlipTransform(100)])
    with pytest.raises(ValueError, match="without providing flip indices"):
        utils.transform_keypoint_annotations(keypoints, flips, (50, 100))
    with pytest.raises(ValueError, match="3 points, but metadata contains 2"):
        utils.transform_keypoint_annotations(keypoints, flips, (50, 100), [1, 0])
    out = utils.transform_keypoint_annotations(keypoints, flips, (50, 100), [1, 0, 2])
    np.testing.assert_array_equal(out, [[10, 40, 1], [90, 20, 2], [0, 0, 0]])
    twice = T.TransformList([T.HFlipTransform(100), T.HFlipTransform(100)])
    out = utils.transform_keypoint_annotations(keypoints, twice, (50, 100))
    np.testing.assert_array_equal(out, [[10, 20, 2], [90, 40, 1], [0, 0, 0]])


def test_hflip_indices():
    indices = utils.create_keypoint_hflip_indices("keypoints_coco_2017_train")
    # nose; then left and right change places, in pairs that follow each other
    assert indices == [0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17))]


def test_instances():
    annotations = [BOX, {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 5}]
    instances = utils.annotations_to_instances(annotations, (50, 100))
    torch.testing.assert_close(
        instances.gt_boxes.tensor, torch.tensor([[10.0, 10, 30, 40], [1, 2, 3, 4]])
    )
    torch.testing.assert_close(instances.gt_classes, torch.tensor([3, 5]))
    assert instances.image_size == (50, 100) and not instances.has("gt_masks")


def test_no_annotations():
    instances = utils.annotations_to_instances([], (50, 100))
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64
    assert len(utils.filter_empty_instances(instances)) == 0


def test_masks():
    mask, rle = mask_and_rle()
    square = [20.0, 10, 40, 10, 40, 30, 20, 30]
    kinds = [[np.array(square)], rle, mask, mask.astype(bool)]
    annotations = [{**BOX, "segmentation": s} for s in kinds]
    masks = utils.annotations_to_instances(annotations, (50, 100), "bitmask").gt_masks
    assert isinstance(masks, BitMasks)
    for i in range(4):
        np.testing.assert_array_equal(masks.tensor[i].numpy(), mask.astype(bool))
    masks = utils.annotations_to_instances(annotations[:1], (50, 100)).gt_masks
    assert isinstance(masks, PolygonMasks)
    np.testing.assert_array_equal(masks.polygons[0][0], square)
    with pytest.raises(ValueError, match="Failed to use mask_format=='polygon'"):
        utils.annotations_to_instances(annotations[1:2], (50, 100))
    with pytest.raises(ValueError, match="Cannot convert segmentation of type"):
        utils.annotations_to_instances([{**BOX, "segmentation": 3}], (50, 100), "bitmask")
    with pytest.raises(AssertionError, match="2 dimensions, got 3"):
        utils.annotations_to_instances([{**BOX, "segmentation": mask[None]}], (50, 100), "bitmask")


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_objects_without_mask_among_others(mask_format):
    polygon = [np.array([20.0, 10, 40, 10, 40, 30])]
    annotations = [dict(BOX), {**BOX, "segmentation": polygon}]
    instances = utils.annotations_to_instances(annotations, (50, 100), mask_format)
    assert instances.gt_masks.nonempty().tolist() == [False, True]
    assert len(utils.filter_empty_instances(instances)) == 1
    assert len(utils.filter_empty_instances(instances, by_mask=False)) == 2


def test_filter_empty():
    boxes = [[0, 0, 5, 5], [3, 3, 3, 9], [1, 1, 2, 1 + 1e-6]]
    annotations = [{**BOX, "bbox": b, "bbox_mode": BoxMode.XYXY_ABS} for b in boxes]
    instances = utils.annotations_to_instances(annotations, (50, 100))
    kept, mask = utils.filter_empty_instances(instances, return_mask=True)
    assert mask.tolist() == [True, False, False] and len(kept) == 1
    assert len(utils.filter_empty_instances(instances, box_threshold=6)) == 0
    with pytest.raises(AssertionError, match="something to filter by"):
        utils.filter_empty_instances(instances, by_box=False, by_mask=False)


def test_keypoints_in_instances():
    annotations = [{**BOX, "keypoints": np.ones((2, 3))}, {**BOX, "keypoints": [1, 2, 2, 3, 4, 1]}]
    keypoints = utils.annotations_to_instances(annotations, (50, 100)).gt_keypoints
    torch.testing.assert_close(keypoints.tensor[1], torch.tensor([[1.0, 2, 2], [3, 4, 1]]))


def test_crop_around_an_object():
    box = {"bbox": (50, 20, 60, 31), "bbox_mode": BoxMode.XYXY_ABS}
    np.random.seed(0)
    crops = [utils.gen_crop_transform_with_instance((10, 15), (40, 100), box) for _ in range(300)]
    for crop in crops:
        assert (crop.h, crop.w) == (10, 15)
        assert crop.x0 <= 55 <= crop.x0 + 15 and crop.y0 <= 25.5 <= crop.y0 + 10
        assert 0 <= crop.x0 <= 85 and 0 <= crop.y0 <= 30
    assert {c.y0 for c in crops} == set(range(16, 26)) and {c.x0 for c in crops} == set(
        range(40, 56)
    )
    whole = utils.gen_crop_transform_with_instance((99, 999), (40, 100), box)
    assert (whole.x0, whole.y0, whole.w, whole.h) == (0, 0, 100, 40)
    with pytest.raises(AssertionError, match="is outside of the image"):
        utils.gen_crop_transform_with_instance((10, 10), (15, 15), box)


@pytest.fixture
def two_datasets():
    MetadataCatalog.get("utils_a").set(
        things=[1], class_image_count=[{"id": 2, "image_count": 9}, {"id": 1, "image_count": 4}]
    )
    MetadataCatalog.get("utils_b").set(things=[2])
    yield
    MetadataCatalog.remove("utils_a")
    MetadataCatalog.remove("utils_b")


def test_metadata_consistency(two_datasets):
    utils.check_metadata_consistency("things", ["utils_a", "utils_a"])
    with pytest.raises(ValueError, match="'utils_a' and 'utils_b' have different metadata"):
        utils.check_metadata_consistency("things", ["utils_a", "utils_b"])
    with pytest.raises(AttributeError, match="stuff"):
        utils.check_metadata_consistency("stuff", ["utils_a"])
    with pytest.raises(AssertionError, match="No dataset"):
        utils.check_metadata_consistency("things", [])


def test_federated_loss_weights(two_datasets):
    weights = utils.get_fed_loss_cls_weights("utils_a", freq_weight_power=0.5)
    torch.testing.assert_close(weights, torch.tensor([2.0, 3.0]))


def test_proposals():
    record = {
        "proposal_boxes": np.array([[10, 10, 20, 20], [30, 10, 30, 40], [90, 10, 99, 60]]),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
        "proposal_objectness_logits": np.array([3, 2, 1]),
    }
    utils.transform_proposals(record, (50, 100), T.HFlipTransform(100), proposal_topk=2)
    proposals = record.pop("proposals")
    assert record == {}
    torch.testing.assert_close(
        proposals.proposal_boxes.tensor, torch.tensor([[80.0, 10, 90, 20], [1, 10, 10, 50]])
    )
    assert proposals.objectness_logits.tolist() == [3, 1]
    utils.transform_proposals(record, (50, 100), T.NoOpTransform(), proposal_topk=2)
    assert record == {}
