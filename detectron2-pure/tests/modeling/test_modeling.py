"""Post-processing, matching, sampling and registries."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Matcher,
    build_model,
    build_sem_seg_head,
    detector_postprocess,
    sem_seg_postprocess,
    subsample_labels,
)
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import nn
from torch.testing import assert_close

# Post-processing --------------------------------------------------------------------------


def predictions():
    return Instances(
        (10, 20),
        pred_boxes=Boxes([[2.0, 1, 6, 4], [30, 0, 40, 5], [0, 0, 25, 10]]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
    )


def test_boxes_are_scaled_clipped_and_emptied():
    out = detector_postprocess(predictions(), 20, 60)
    assert out.image_size == (20, 60)
    assert_close(out.pred_boxes.tensor, torch.tensor([[6.0, 2, 18, 8], [0, 0, 60, 20]]))
    assert_close(out.scores, torch.tensor([0.9, 0.7]))


def test_input_is_not_modified():
    results = predictions()
    results.pred_keypoints = torch.ones(3, 2, 3)
    detector_postprocess(results, 20, 60)
    assert_close(results.pred_boxes.tensor, predictions().pred_boxes.tensor)
    assert_close(results.pred_keypoints, torch.ones(3, 2, 3))
    assert results.image_size == (10, 20)


@pytest.mark.parametrize("kind", ["tensor", "roi"])
def test_masks_are_pasted(kind):
    results = predictions()
    masks = torch.ones(3, 1, 4, 4)
    results.pred_masks = masks if kind == "tensor" else ROIMasks(masks[:, 0])
    out = detector_postprocess(results, 20, 60)
    assert out.pred_masks.shape == (2, 20, 60)
    assert out.pred_masks.dtype == torch.bool
    expected = torch.zeros(20, 60, dtype=torch.bool)
    expected[2:8, 6:18] = True
    # Corners are blurred by the interpolation.
    assert (out.pred_masks[0] & ~expected).sum() == 0
    assert out.pred_masks[0][3:7, 8:16].all()


def test_keypoints_and_proposals():
    results = Instances((10, 20), proposal_boxes=Boxes([[2.0, 1, 6, 4]]))
    results.pred_keypoints = torch.tensor([[[3.0, 2.0, 0.5]]])
    out = detector_postprocess(results, 20, 60)
    assert_close(out.proposal_boxes.tensor, torch.tensor([[6.0, 2, 18, 8]]))
    assert_close(out.pred_keypoints, torch.tensor([[[9.0, 4.0, 0.5]]]))


def test_no_boxes_and_no_predictions():
    with pytest.raises(AssertionError, match="Predictions must contain boxes!"):
        detector_postprocess(Instances((10, 20), scores=torch.zeros(1)), 5, 5)
    empty = detector_postprocess(predictions()[:0], 20, 60)
    assert len(empty) == 0


def test_sem_seg_postprocess():
    # The padding, of another value, must not leak into the result.
    scores = torch.full((2, 8, 8), 100.0)
    scores[0, :4, :6] = torch.arange(6.0)
    scores[1, :4, :6] = 7
    out = sem_seg_postprocess(scores, (4, 6), 8, 12)
    assert out.shape == (2, 8, 12)
    # Twice the size: the first column of the ramp is clamped, then quarters alternate.
    assert_close(out[0, 3, :4], torch.tensor([0.0, 0.25, 0.75, 1.25]))
    assert_close(out[1], torch.full((8, 12), 7.0))


# Matcher ----------------------------------------------------------------------------------

QUALITY = torch.tensor([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]])


def test_matcher():
    # The best object of each prediction has 0.3, 0.65, 0.25, 0.6.
    matches, labels = Matcher([0.3, 0.6], [0, -1, 1])(QUALITY)
    assert matches.tolist() == [1, 1, 2, 0]
    assert labels.tolist() == [-1, 1, 0, 1]
    assert labels.dtype == torch.int8


def test_matcher_low_quality():
    # Object 2 has its best, 0.4, with predictions 1 and 3, objects 0 and 1 with 3 and 1.
    low = Matcher([0.7], [0, 1], allow_low_quality_matches=True)
    assert low(QUALITY)[1].tolist() == [0, 1, 0, 1]
    assert Matcher([0.7], [0, 1])(QUALITY)[1].tolist() == [0, 0, 0, 0]


def test_matcher_in_torchscript():
    def make(thresholds: list[float], labels: list[int]):
        return Matcher(thresholds, labels, allow_low_quality_matches=True)

    for objects in (QUALITY, QUALITY[:0]):
        scripted = torch.jit.script(make)([0.3, 0.6], [0, -1, 1])(objects)
        assert_close(scripted, make([0.3, 0.6], [0, -1, 1])(objects))


def test_matcher_without_objects():
    matches, labels = Matcher([0.3, 0.6], [0, -1, 1])(torch.zeros(0, 3))
    assert matches.tolist() == labels.tolist() == [0, 0, 0]
    matches, labels = Matcher([0.5], [-1, 1])(torch.zeros(2, 0))
    assert matches.shape == labels.shape == (0,)


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [([0.6, 0.3], [0, -1, 1]), ([-0.1], [0, 1]), ([0.5], [0, 2]), ([0.5], [0, -1, 1])],
)
def test_matcher_refuses(thresholds, labels):
    with pytest.raises(AssertionError):
        Matcher(thresholds, labels)


def test_matcher_refuses_bad_qualities():
    matcher = Matcher([0.5], [0, 1])
    for bad in (torch.tensor([[-0.1]]), torch.tensor([[float("nan")]]), torch.zeros(3)):
        with pytest.raises(AssertionError):
            matcher(bad)


# Sampling and registries ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_samples", "fraction", "positive", "negative"),
    [(4, 0.5, 2, 2), (4, 0.25, 1, 3), (20, 0.5, 3, 4), (4, 1.0, 3, 1)],
)
def test_subsample_labels(num_samples, fraction, positive, negative):
    labels = torch.tensor([0, 1, 2, -1, 9, 9, 9, 9])
    pos, neg = subsample_labels(labels, num_samples, fraction, bg_label=9)
    assert (len(pos), len(neg)) == (positive, negative)
    assert set(pos.tolist()) <= {0, 1, 2}
    assert set(neg.tolist()) <= {4, 5, 6, 7}
    assert len(set(pos.tolist())) == len(pos)


def test_registries():
    @META_ARCH_REGISTRY.register()
    class TestModel(nn.Linear):
        def __init__(self, cfg):
            super().__init__(cfg.MODEL.WIDTH, 1)

    @SEM_SEG_HEADS_REGISTRY.register()
    def test_head(cfg, input_shape):
        return input_shape

    cfg = {"META_ARCHITECTURE": "TestModel", "DEVICE": "cpu", "WIDTH": 3}
    cfg = CfgNode({"MODEL": {**cfg, "SEM_SEG_HEAD": {"NAME": "test_head"}}})
    assert build_model(cfg).weight.shape == (1, 3)
    assert build_sem_seg_head(cfg, {"x": ShapeSpec()}) == {"x": ShapeSpec()}
