"""timm's networks with the weights of upstream's hand-written ones give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import reference_models
import torch
import upstream_backbones
from reference_recipe import recipe_value
from timm.models import build_model_with_cfg, register_model
from timm.models.focalnet import Downsample, FocalNet
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn
from torch.nn import functional as F

from detrex.checkpoint import load_weights
from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.backbone.timm_swin import pad_before_shifting


def images() -> Tensor:
    """The reference's batch (2, 3, 192, 256) as its models normalize it."""
    batch = torch.stack([entry["image"] for entry in reference_models.batch()])
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    return (batch - mean) / std


MEASURED = (
    "dino_swin_tiny_224",
    "dino_convnext_tiny_384",
    "dino_focal_tiny_lrf_fl3",
    "dino_vitdet_base",
)


@pytest.mark.parametrize("name", MEASURED)
def test_outputs(name):
    """In float32, as the reference was; float64 takes a minute more and agrees to 2e-6."""
    backbone = upstream_backbones.build(name)
    report = load_weights(nn.ModuleDict({"backbone": backbone}), upstream_backbones.weights(name))
    assert report.missing == report.unexpected == []
    with torch.no_grad():
        features = backbone.eval()(images())
    expected = upstream_backbones.statistics(name)
    assert list(features) == list(expected)
    for level, y in features.items():
        found = torch.cat([torch.stack([y.mean(), y.std()]), y.flatten()[:8]])
        torch.testing.assert_close(found, expected[level], rtol=1e-5, atol=5e-5)


@register_model
def focalnet_of_any_width(pretrained: bool = False, **arguments) -> nn.Module:
    """timm's entry points have their widths fixed."""
    layout = {"flatten_sequential": True, "out_indices": (0, 1, 2, 3)}
    return build_model_with_cfg(
        FocalNet, "focalnet_tiny_srf", pretrained, feature_cfg=layout, **arguments
    )


SMALL = {
    "convnext": {
        "model_name": "convnext_tiny",
        "depths": (1, 1, 2, 1),
        "dims": (8, 16, 24, 32),
    },
    "focalnet_conv_postln": {
        "model_name": "focalnet_of_any_width",
        "embed_dim": 8,
        "depths": (1, 1, 2, 1),
        "use_overlap_down": True,
        "use_post_norm": True,
        "layerscale_value": 1.0,
    },
    "focalnet_plain": {
        "model_name": "focalnet_of_any_width",
        "embed_dim": 8,
        "depths": (1, 1, 2, 1),
        "out_indices": (1, 2, 3),
    },
}


def pad_to_stride(convolution: nn.Conv2d, inputs: tuple[Tensor]) -> Tensor:
    """Upstream's FocalNet pads each map it shrinks; a detector's images don't need it."""
    (x,) = inputs
    stride = convolution.stride[0]
    return F.pad(x, (0, -x.shape[3] % stride, 0, -x.shape[2] % stride))


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name):
    """Whole outputs, in float64, for an image whose sides no stride divides."""
    backbone = TimmBackbone(level_norm=True, **SMALL[name])
    shapes = upstream_backbones.names_and_shapes(name)["parameters"]
    state = {key: torch.from_numpy(recipe_value(key, tuple(s))) for key, s in shapes.items()}
    report = load_weights(nn.ModuleDict({"backbone": backbone}), state)
    assert report.missing == report.unexpected == []
    for module in backbone.modules():
        if isinstance(module, Downsample):
            module.proj.register_forward_pre_hook(pad_to_stride)
    image = np.random.RandomState(18).standard_normal((1, 3, 70, 90)).astype(np.float32)
    with torch.no_grad():
        features = backbone.double().eval()(torch.from_numpy(image).double())
    expected = upstream_backbones.small(name)
    assert list(features) == list(expected)
    for level, y in features.items():
        torch.testing.assert_close(y, expected[level].double(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("block_class", [SwinTransformerBlock, SwinTransformerV2Block])
def test_shifted_windows_end_at_the_edge(block_class):
    """Rows at the top and at the bottom of a map are not neighbors, whatever its size."""
    torch.manual_seed(0)
    block = block_class(8, (11, 13), 2, window_size=4, shift_size=2, dynamic_mask=True)
    model = nn.Sequential(block).double().eval()
    pad_before_shifting(model)
    x = torch.randn(1, 11, 13, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, 0, 0, 0] += 1
    with torch.no_grad():
        difference = (model(changed) - model(x)).abs().amax(-1)[0]
    assert difference[0, 0] > 0
    # the first row's window ends two rows further down, as it does to the right
    assert difference[2:].max() < 1e-12
    assert difference[:, 2:].max() < 1e-12
