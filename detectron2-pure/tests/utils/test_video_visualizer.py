import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode

H, W = 60, 90


def frame():
    return np.full((H, W, 3), 100, dtype=np.uint8)


def found(*objects, masks=False):
    """Instances of (class, x, y), each 20 pixels wide and high."""
    boxes = torch.tensor([[x, y, x + 20.0, y + 20] for _, x, y in objects]).reshape(-1, 4)
    instances = Instances((H, W), pred_classes=torch.tensor([c for c, _, _ in objects]).long())
    instances.pred_boxes = Boxes(boxes)
    if masks:
        bitmaps = torch.zeros(len(objects), H, W, dtype=torch.bool)
        for bitmap, (_, x, y) in zip(bitmaps, objects, strict=True):
            bitmap[y : y + 20, x : x + 20] = True
        instances.pred_masks = bitmaps
    return instances


def colors_of(video, instances):
    """The colors of the instances after drawing a frame."""
    video.draw_instance_predictions(frame(), instances)
    return [o.color for o in video._old_instances[: len(instances)]]


@pytest.mark.parametrize("masks", [False, True])
def test_colors_follow_the_instances(masks):
    video = VideoVisualizer(Metadata())
    first = colors_of(video, found((0, 5, 5), (1, 50, 5), masks=masks))
    assert first[0] != first[1]
    moved = colors_of(video, found((1, 52, 7), (0, 7, 6), masks=masks))
    assert moved == first[::-1]
    other_class = colors_of(video, found((2, 52, 7), masks=masks))
    assert other_class[0] not in first
    without_boxes = found((0, 50, 35), masks=True)
    without_boxes.remove("pred_boxes")
    colors_of(video, without_boxes)
    far = colors_of(video, found((0, 30, 35), masks=masks))
    assert far[0] not in [*first, *other_class]


@pytest.mark.parametrize("missing, remembered", [(1, True), (7, True), (8, False)])
def test_instances_may_be_missing_for_a_while(missing, remembered):
    video = VideoVisualizer(Metadata())
    first = colors_of(video, found((0, 5, 5)))
    for _ in range(missing):
        colors_of(video, found())
    assert (colors_of(video, found((0, 5, 5))) == first) == remembered


def test_two_instances_do_not_share_an_earlier_one():
    video = VideoVisualizer(Metadata())
    colors_of(video, found((0, 5, 5)))
    colors = colors_of(video, found((0, 5, 5), (0, 6, 6)))
    assert colors[0] != colors[1]


@pytest.mark.parametrize("mode", list(ColorMode))
@pytest.mark.parametrize("masks", [False, True])
def test_frames_are_drawn_in_all_modes(mode, masks):
    meta = Metadata().set(thing_classes=["cat"], thing_colors=[(255, 0, 0)])
    video = VideoVisualizer(meta, mode)
    instances = found((0, 10, 30), masks=masks)
    instances.scores = torch.tensor([0.5])
    image = video.draw_instance_predictions(frame(), instances).get_image()
    assert image.shape == (H, W, 3)
    assert (image != 100).any()
    assert (video.draw_instance_predictions(frame(), found()).get_image() == 100).all()


def test_semantic_and_panoptic_maps():
    meta = Metadata().set(stuff_classes=["a", "b"], thing_classes=["cat"])
    labels = np.zeros((H, W), dtype=int)
    labels[:30] = 1
    video = VideoVisualizer(meta)
    assert (video.draw_sem_seg(frame(), labels).get_image() != 100).any(axis=2).all()
    info = [{"id": 1, "category_id": 0, "isthing": True}]
    image = video.draw_panoptic_seg_predictions(frame(), labels, info).get_image()
    assert (image[:25] != 100).any(axis=2).all() and (image[35:] == 100).all()
