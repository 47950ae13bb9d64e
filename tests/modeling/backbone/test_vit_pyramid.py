"""One name for the pyramid with its network and for the pyramid alone."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from detectron2.modeling import Backbone
from detectron2.modeling.backbone import LastLevelMaxPool
from detectron2.modeling.backbone import SimpleFeaturePyramid as SimpleFeaturePyramidOfD2

from detrex.modeling.backbone import EVAViT, SimpleFeaturePyramid, eva, eva_02, feature_pyramid

NET = {"img_size": 64, "embed_dim": 16, "depth": 1, "num_heads": 2}


def test_one_class_for_all_paths():
    assert eva.SimpleFeaturePyramid is eva_02.SimpleFeaturePyramid is SimpleFeaturePyramid


@pytest.mark.parametrize("scales", [(4.0, 2.0, 1.0, 0.5), (1.0,)])
def test_around_a_network(scales):
    top = LastLevelMaxPool() if 0.5 in scales else None
    backbone = SimpleFeaturePyramid(EVAViT(**NET), "last_feat", 8, scales, top, square_pad=64)
    assert isinstance(backbone, Backbone)
    x = torch.randn(1, 3, 128, 64)
    features = backbone(x)
    for name, shape in backbone.output_shape().items():
        assert features[name].shape == (1, 8, 128 // shape.stride, 64 // shape.stride)
    assert len(features) == len(scales) + (top is not None)
    assert backbone.padding_constraints["square_size"] == 64
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(twin(x)["p4"], features["p4"])


def test_a_subclass_of_ones_own():
    class Pyramid(SimpleFeaturePyramid):
        def __init__(self, net):
            super().__init__(net, "last_feat", 8, (1.0,))

    assert list(inspect.signature(Pyramid).parameters) == ["net"]
    assert inspect.signature(SimpleFeaturePyramid) == inspect.signature(SimpleFeaturePyramidOfD2)
    assert set(Pyramid(net=EVAViT(**NET))(torch.randn(1, 3, 32, 32))) == {"p4"}


@pytest.mark.parametrize(
    "arguments, named",
    [
        ((16, 16, (8, 16)), {"out_channels": 4}),
        ((), {"in_channels": 16, "in_stride": 16, "out_strides": (8, 16), "out_channels": 4}),
    ],
)
def test_alone(arguments, named):
    pyramid = SimpleFeaturePyramid(*arguments, **named)
    assert type(pyramid) is feature_pyramid.SimpleFeaturePyramid
    assert set(pyramid(torch.randn(1, 16, 2, 2))) == {"p3", "p4"}
