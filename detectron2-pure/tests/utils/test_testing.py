import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.structures import Boxes, Instances
from detectron2.utils import testing
from omegaconf import OmegaConf
from torch import nn


def instances(shift=0.0, **fields):
    boxes = Boxes(torch.tensor([[1.0, 2, 30, 40]]) + shift)
    return Instances((50, 100), pred_boxes=boxes, pred_classes=torch.tensor([3]), **fields)


def test_boxes_have_positive_sides_in_range():
    boxes = testing.random_boxes(200, max_coord=10)
    assert boxes.shape == (200, 4) and boxes.min() >= 1 and boxes.max() <= 10
    assert (boxes[:, 2:] - boxes[:, :2]).min() > 0.999
    assert testing.random_boxes(0).shape == (0, 4)


def test_instances_are_compared_relative_to_their_size():
    testing.assert_instances_allclose(instances(), instances(0.09), rtol=1e-3)
    testing.assert_instances_allclose(instances()[:0], instances()[:0])
    with pytest.raises(AssertionError, match="mine pred_boxes differs too much"):
        testing.assert_instances_allclose(instances(), instances(0.11), rtol=1e-3, msg="mine")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Instances((51, 100)), "image_size"),
        (instances(scores=torch.ones(1)), "Fields are"),
        (Instances((50, 100), pred_boxes=Boxes(torch.ones(1, 4)), pred_classes=[3]), "pred_boxes"),
    ],
)
def test_instances_that_differ(other, message):
    with pytest.raises(AssertionError, match=message):
        testing.assert_instances_allclose(instances(), other)


def test_sizes_of_traced_models():
    traced = instances()
    traced._image_size = torch.tensor([50, 100])
    testing.assert_instances_allclose(instances(), traced, size_as_tensor=True)


def test_lazy_config_after_a_round_trip():
    cfg = OmegaConf.create({"a": L(nn.Linear)(in_features=2, out_features="${..n}"), "n": 3})
    reloaded = testing.reload_lazy_config(cfg)
    assert reloaded.a == {
        "_target_": "torch.nn.Linear",
        "in_features": 2,
        "out_features": 3,
    }


def test_sample_picture(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    array, tensor = testing.get_sample_coco_image(tensor=False), testing.get_sample_coco_image()
    assert array.shape == (480, 640, 3) and array.dtype == np.uint8
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), array)


def test_torch_version():
    assert testing.min_torch_version("2.0") and not testing.min_torch_version("99.0")
