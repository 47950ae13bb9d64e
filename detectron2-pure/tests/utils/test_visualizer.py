import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints, PolygonMasks
from detectron2.utils.visualizer import ColorMode, Visualizer, _create_text_labels
from PIL import Image

H, W = 80, 120
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def gray():
    return np.full((H, W, 3), 100, dtype=np.uint8)


def metadata(**kwargs):
    return Metadata().set(thing_classes=["cat", "dog"], **kwargs)


def changed(output):
    """Where a drawing differs from the gray picture."""
    return (output.get_image() != 100).any(axis=2)


def bitmap(y0, y1, x0, x1):
    mask = np.zeros((H, W), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize("shape", [(464, 464), (33, 47), (1, 1), (100, 301)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_size_of_the_result(shape, scale):
    if min(shape) * scale < 1:
        return
    output = Visualizer(np.random.rand(*shape, 3) * 255, scale=scale).get_output()
    expected = (int(shape[0] * scale), int(shape[1] * scale), 3)
    assert output.get_image().shape == expected and output.get_image().dtype == np.uint8


def test_nothing_drawn_leaves_the_picture(tmp_path):
    img = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    output = Visualizer(img).get_output()
    np.testing.assert_array_equal(output.get_image(), img)
    output.save(tmp_path / "a.png")
    saved = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(saved, img)
    from_gray = Visualizer(img[..., 0]).get_output().get_image()
    np.testing.assert_array_equal(from_gray[..., 2], img[..., 0])


def test_box_is_drawn_where_it_is():
    drawn = changed(Visualizer(gray()).draw_box((20, 10, 100, 60), edge_color="r"))
    ys, xs = drawn.nonzero()
    found = np.array([xs.min(), ys.min(), xs.max(), ys.max()])
    assert np.abs(found - [20, 10, 100, 60]).max() <= 2
    assert not drawn[15:55, 25:95].any()


def test_mask_with_hole_is_filled_but_for_the_hole():
    mask = bitmap(10, 70, 10, 70) & ~bitmap(30, 50, 30, 50)
    output = Visualizer(gray()).draw_binary_mask(mask, color=RED, alpha=0.5)
    image = output.get_image()
    expected = np.array([100 * 0.5 + 255 * 0.5, 50, 50])
    assert np.abs(image[20, 20].astype(float) - expected).max() <= 1
    assert (image[40, 40] == 100).all()
    assert (image[75, 75] == 100).all()


@pytest.mark.parametrize("scale", [1, 3])
def test_mask_with_hole_is_exact_to_the_pixel(scale):
    mask = bitmap(0, H, 30, 70) & ~bitmap(30, 50, 40, 60)
    image = Visualizer(gray(), scale=scale).draw_binary_mask(mask, color=RED).get_image()
    drawn = (image != 100).any(axis=2)
    np.testing.assert_array_equal(drawn, mask.repeat(scale, axis=0).repeat(scale, axis=1))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 2


def test_small_masks_can_be_left_out():
    mask = bitmap(10, 12, 10, 14)
    assert not changed(Visualizer(gray()).draw_binary_mask(mask, area_threshold=10)).any()
    assert changed(Visualizer(gray()).draw_binary_mask(mask, area_threshold=7)).any()
    both = mask | bitmap(40, 60, 40, 60)
    drawn = changed(Visualizer(gray()).draw_binary_mask(both, area_threshold=50))
    assert drawn[50, 50] and not drawn[:35].any()
    empty = np.zeros((H, W))
    assert not changed(Visualizer(gray()).draw_binary_mask(empty, text="x", area_threshold=0)).any()


def test_soft_mask():
    soft = bitmap(10, 70, 10, 70) * 0.5
    image = Visualizer(gray()).draw_soft_mask(soft, color=RED, alpha=0.5).get_image()
    assert np.abs(image[40, 40].astype(float) - [100 * 0.75 + 255 * 0.25, 75, 75]).max() <= 1
    assert (image[75, 75] == 100).all()


def test_polygon_line_and_circle():
    square = [(10, 10), (40, 10), (40, 40), (10, 40)]
    image = Visualizer(gray()).draw_polygon(square, RED, alpha=1).get_image()
    assert image[25, 25].tolist() == [255, 0, 0]
    image = Visualizer(gray()).draw_circle((60, 40), GREEN, radius=6).get_image()
    assert image[40, 60].tolist() == [0, 255, 0] and image[50, 60].tolist() == [100] * 3
    image = Visualizer(gray()).draw_line([0, W], [40, 40], RED, linewidth=4).get_image()
    assert image[40, 60].tolist() == [255, 0, 0]


@pytest.mark.parametrize("position", [(0, 0), (118, 78), (60, 40), (-50, 500)])
@pytest.mark.parametrize("alignment", ["left", "center", "right"])
def test_text_stays_in_the_picture(position, alignment):
    visualizer = Visualizer(gray())
    middle = changed(Visualizer(gray()).draw_text("label", (60, 40)))
    drawn = changed(visualizer.draw_text("label", position, horizontal_alignment=alignment))
    assert abs(int(drawn.sum()) - int(middle.sum())) <= 0.15 * middle.sum()


@pytest.mark.parametrize("size", [(64, 64), (120, 160), (480, 640)])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_text_is_tall_enough_to_read(size, scale):
    image = np.full((*size, 3), 100, dtype=np.uint8)
    drawn = changed(Visualizer(image, scale=scale).draw_text("Hg", (30, 30)))
    height = np.ptp(drawn.nonzero()[0]) + 1
    assert height >= 11
    assert height <= max(0.06 * size[0] * scale, 24)


def test_text_is_bright_on_dark():
    for color in ("black", "navy", "white", RED):
        image = Visualizer(gray()).draw_text("M", (60, 40), color=color).get_image().astype(int)
        assert image.mean(axis=2).min() < 50
        assert image.max() > 150


def masks_in_all_forms():
    bitmaps = np.stack([bitmap(10, 40, 10, 50), bitmap(50, 70, 60, 110)])
    rles = [mask_util.encode(np.asfortranarray(m.astype(np.uint8))) for m in bitmaps]
    polygons = [
        [np.array([10, 10, 50, 10, 50, 40, 10, 40.0])],
        [np.array([60, 50, 110, 50, 110, 70, 60, 70.0])],
    ]
    tensor = torch.from_numpy(bitmaps)
    return {
        "array": bitmaps,
        "tensor": tensor,
        "BitMasks": BitMasks(tensor),
        "PolygonMasks": PolygonMasks(polygons),
        "rles": rles,
        "polygons": polygons,
        "tensors": list(tensor),
    }


@pytest.mark.parametrize("form", list(masks_in_all_forms()))
def test_forms_of_masks(form):
    visualizer = Visualizer(gray())
    output = visualizer.overlay_instances(
        masks=masks_in_all_forms()[form], assigned_colors=[RED, GREEN], alpha=1
    )
    image = output.get_image()
    assert image[25, 30].tolist() == [255, 0, 0]
    assert image[60, 85].tolist() == [0, 255, 0]
    assert image[60, 30].tolist() == [100] * 3


def test_small_instances_are_on_top():
    masks = [bitmap(30, 40, 30, 40), bitmap(10, 70, 10, 110)]
    colors = [RED, GREEN]
    output = Visualizer(gray()).overlay_instances(masks=masks, assigned_colors=colors, alpha=1)
    image = output.get_image()
    assert image[35, 35].tolist() == [255, 0, 0] and image[60, 60].tolist() == [0, 255, 0]


def test_instances_get_different_colors():
    masks = [bitmap(10, 70, 10 * i, 10 * i + 10) for i in range(12)]
    image = Visualizer(gray()).overlay_instances(masks=masks, alpha=1).get_image()
    colors = [image[40, 10 * i + 5].astype(int) for i in range(12)]
    distances = [np.abs(a - b).max() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(distances) > 40


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"boxes": np.zeros((0, 4))},
        {"boxes": [], "labels": []},
        {"masks": []},
        {"boxes": Boxes(torch.zeros(0, 4)), "masks": torch.zeros(0, H, W), "labels": []},
    ],
)
def test_no_instances(arguments):
    assert not changed(Visualizer(gray()).overlay_instances(**arguments)).any()


def test_different_counts_are_an_error():
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        Visualizer(gray()).overlay_instances(boxes=[[1, 2, 3, 4]], labels=["a", "b"])


def test_empty_mask_among_others():
    masks = [np.zeros((H, W), bool), bitmap(10, 70, 10, 70)]
    output = Visualizer(gray()).overlay_instances(masks=masks, labels=["none", "some"])
    assert changed(output).any()


def test_rotated_boxes():
    output = Visualizer(gray()).overlay_instances(
        boxes=np.array([[60, 40, 60, 20, 90.0]]), labels=["x"], assigned_colors=[RED]
    )
    ys, xs = (output.get_image() == [255, 0, 0]).all(axis=2).nonzero()
    assert abs((xs.min() + xs.max()) / 2 - 60) <= 2 and np.ptp(xs) < 25
    assert abs((ys.min() + ys.max()) / 2 - 40) <= 3 and 55 < np.ptp(ys) < 66


def predictions(masks=True):
    instances = Instances((H, W))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 10, 50, 40], [60, 50, 110, 70]]))
    instances.scores = torch.tensor([0.9, 0.5])
    instances.pred_classes = torch.tensor([0, 1])
    if masks:
        instances.pred_masks = masks_in_all_forms()["tensor"]
    return instances


@pytest.mark.parametrize("mode", list(ColorMode))
@pytest.mark.parametrize("meta", [None, metadata(), metadata(thing_colors=[(255, 0, 0)] * 2)])
def test_predictions_in_all_modes(mode, meta):
    for instances in (predictions(), predictions(masks=False)):
        output = Visualizer(gray(), meta, instance_mode=mode).draw_instance_predictions(instances)
        assert changed(output).any()


def test_predictions_with_any_fields():
    for fields in (["pred_boxes"], ["pred_masks"], ["scores"], ["pred_boxes", "scores"]):
        instances = Instances((H, W), **{f: predictions().get(f) for f in fields})
        Visualizer(gray(), metadata()).draw_instance_predictions(instances)


def test_no_predictions():
    empty = predictions()[torch.zeros(2, dtype=torch.bool)]
    for mode in ColorMode:
        visualizer = Visualizer(gray(), metadata(), instance_mode=mode)
        assert not changed(visualizer.draw_instance_predictions(empty)).any()


def test_class_colors():
    meta = metadata(thing_colors=[(200, 0, 0), (0, 200, 0)])
    visualizer = Visualizer(gray(), meta, instance_mode=ColorMode.SEGMENTATION)
    instances = predictions()
    instances.remove("pred_boxes")
    instances.remove("scores")
    image = visualizer.draw_instance_predictions(instances, jittering=False).get_image()
    expected = 0.8 * np.array([200, 0, 0]) + 0.2 * 100
    assert np.abs(image[14, 14] - expected).max() <= 1


def test_picture_is_gray_outside_of_instances():
    img = gray()
    img[..., 0] = 220
    visualizer = Visualizer(img, metadata(), instance_mode=ColorMode.IMAGE_BW)
    image = visualizer.draw_instance_predictions(predictions()).get_image().astype(int)
    assert np.ptp(image[75, 30]) == 0
    # the first color is red: 0.7 * (220, 100, 100) + 0.3 * (255, 0, 0)
    assert np.abs(image[14, 46] - [230.5, 70, 70]).max() <= 1


def test_the_callers_picture_is_not_changed():
    img = gray()
    Visualizer(img, metadata()).draw_instance_predictions(predictions())
    assert (img == 100).all()


def test_dataset_dict():
    rle = mask_util.encode(np.asfortranarray(bitmap(50, 70, 60, 110).astype(np.uint8)))
    polygon = [[10, 10, 50, 10, 50, 40, 10, 40]]
    keypoints = [30, 20, 2, 40, 30, 0]
    annotations = [
        {"bbox": [10, 10, 40, 30], "segmentation": polygon, "keypoints": keypoints},
        {"bbox": [60, 50, 50, 20], "segmentation": rle, "keypoints": keypoints, "iscrowd": 1},
    ]
    for category, annotation in enumerate(annotations):
        annotation.update(bbox_mode=BoxMode.XYWH_ABS, category_id=category)
    for meta in (None, metadata(), metadata(thing_colors=[(255, 0, 0)] * 2)):
        for mode in ColorMode:
            visualizer = Visualizer(gray(), meta, instance_mode=mode)
            drawn = changed(visualizer.draw_dataset_dict({"annotations": annotations}))
            assert drawn[25, 30] and drawn[60, 85] and not drawn[75, 30]
    del annotations[0]["segmentation"]
    drawn = changed(Visualizer(gray()).draw_dataset_dict({"annotations": annotations}))
    assert not drawn[35, 25] and drawn[60, 85]
    assert not changed(Visualizer(gray()).draw_dataset_dict({"annotations": []})).any()
    assert not changed(Visualizer(gray()).draw_dataset_dict({})).any()


def test_dataset_dict_with_semantic_file(tmp_path):
    labels = bitmap(0, 40, 0, W).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "s.png")
    meta = Metadata().set(stuff_classes=["a", "b"], stuff_colors=[(255, 0, 0), (0, 255, 0)])
    visualizer = Visualizer(gray(), meta)
    image = visualizer.draw_dataset_dict({"sem_seg_file_name": str(tmp_path / "s.png")}).get_image()
    assert image[10, 10, 1] > 150 > 100 > image[10, 10, 0]
    assert image[70, 10, 0] > 150 > 100 > image[70, 10, 1]


def test_dataset_dict_with_panoptic_file(tmp_path):
    ids = np.where(bitmap(0, 40, 0, W), 256 + 7, 256**2)
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)
    Image.fromarray(colors).save(tmp_path / "p.png")
    meta = Metadata().set(
        thing_classes=["a"], thing_colors=[(255, 0, 0)], stuff_classes=["b", "c"],
        stuff_colors=[(0, 0, 0), (0, 255, 0)],
    )  # fmt: skip
    info = [
        {"id": 256 + 7, "category_id": 0, "isthing": True, "iscrowd": 0},
        {"id": 256**2, "category_id": 1, "isthing": False, "iscrowd": 0},
    ]
    record = {"pan_seg_file_name": str(tmp_path / "p.png"), "segments_info": info}
    image = Visualizer(gray(), meta).draw_dataset_dict(record).get_image()
    assert image[10, 10, 0] > 150 > 100 > image[10, 10, 1]
    assert image[70, 10, 1] > 150 > 100 > image[70, 10, 0]
    direct = Visualizer(gray(), meta).draw_dataset_dict({"pan_seg": ids, "segments_info": info})
    np.testing.assert_array_equal(direct.get_image(), image)


@pytest.mark.parametrize("as_tensor", [True, False])
def test_semantic_map_leaves_unknown_labels_out(as_tensor):
    labels = np.where(bitmap(0, 40, 0, W), 0, 1)
    labels[:, :30] = 255
    meta = Metadata().set(stuff_classes=["sky", "road"])
    labels = torch.from_numpy(labels) if as_tensor else labels
    drawn = changed(Visualizer(gray(), meta).draw_sem_seg(labels))
    assert drawn[:, 32:].all() and not drawn[:, :28].any()
    assert changed(Visualizer(gray()).draw_sem_seg(labels)).all()


@pytest.mark.parametrize("with_info", [True, False])
def test_panoptic_map(with_info):
    """Class 0 is a thing with two segments, class 1 is stuff; the left part is void."""
    ids = np.full((H, W), 1000)
    ids[2:42, 40:75] = 1
    ids[44:79, 80:115] = 2
    ids[:, :20] = -1
    info = [
        {"id": 1000, "category_id": 1, "isthing": False},
        {"id": 1, "category_id": 0, "isthing": True, "score": 0.5},
        {"id": 2, "category_id": 0, "isthing": True, "score": 0.9},
        {"id": 77, "category_id": 0, "isthing": True, "score": 0.9},
    ]
    meta = Metadata().set(
        thing_classes=["cat"],
        stuff_classes=["things", "grass"],
        stuff_colors=[(0, 0, 0), (0, 255, 0)],
        thing_colors=[(255, 0, 0)],
        label_divisor=1000,
        thing_dataset_id_to_contiguous_id={7: 0},
    )
    for mode in ColorMode:
        visualizer = Visualizer(gray(), meta, instance_mode=mode)
        output = visualizer.draw_panoptic_seg(
            torch.from_numpy(ids), info if with_info else None, alpha=1
        )
        image = output.get_image().astype(int)
        assert (image[:, :18] == 100).all()
        assert image[75, 60].tolist() == [0, 255, 0]
        assert image[6, 70, 0] > 200 > image[6, 70, 1]
        assert image[48, 110, 0] > 200 > image[48, 110, 1]


def test_keypoints_are_connected():
    meta = Metadata().set(
        keypoint_names=["nose", "hand", "foot"],
        keypoint_connection_rules=[("nose", "hand", (0, 0, 255)), ("nose", "foot", (0, 255, 0))],
    )
    points = torch.tensor([[[20.0, 20, 1], [100, 20, 1], [20, 70, 0]]])
    for keypoints in (points, points.numpy(), Keypoints(points)):
        image = Visualizer(gray(), meta).overlay_instances(keypoints=keypoints).get_image()
        assert image[20, 60, 2] > 150 and image[20, 60, 0] < 100  # nose to hand
        assert image[45, 20].tolist() == [100] * 3  # the foot is not visible
        assert image[20, 20, 0] > 200


def test_text_labels():
    names = ["cat", "dog"]
    assert _create_text_labels([1, 0], [0.987, 0.4], names) == ["dog 99%", "cat 40%"]
    assert _create_text_labels([1, 0], None, names, [True, False]) == ["dog|crowd", "cat"]
    assert _create_text_labels([1], None, None) == ["1"]
    assert _create_text_labels(None, torch.tensor([0.5]), names) == ["50%"]
    assert _create_text_labels(None, None, names) is None
