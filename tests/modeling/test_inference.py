"""Models made ready for inference give the detections of the models they were made of."""

from __future__ import annotations

import math

import pytest
import reference_models
import torch
import zoo
from detectron2.config import instantiate
from torch import nn
from torch.testing import assert_close
from toy_models import FAMILIES, tiny

from detrex.checkpoint import load_weights
from detrex.config import get_config
from detrex.layers.ms_deform_attn import use_implementation
from detrex.modeling.detr import DETR
from detrex.modeling.inference import MANY_TOKENS, for_inference
from detrex.utils.pretrained import skip_pretrained

MODELS = {
    "detr_r50": "detr/detr_r50_300ep.py",
    "deformable_detr_r50": "deformable_detr/deformable_detr_r50_50ep.py",
}


def build(name: str) -> DETR:
    with skip_pretrained():
        model = instantiate(get_config(MODELS[name]).model)
    load_weights(model, reference_models.state_dict(name))
    return model.eval()


@torch.no_grad()
def predict(model: DETR, batch: list):
    """Logits and boxes of the last layer."""
    last = model.predict(model.preprocess(batch))[0]
    return last.logits, last.boxes


@pytest.mark.parametrize("name", ["detr_r50", "deformable_detr_r50"])
def test_detections_stay(name):
    model = build(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fast = for_inference(model)
    batch = reference_models.batch()
    for actual, expected in zip(predict(fast, batch), predict(model, batch), strict=True):
        assert_close(actual, expected, rtol=0, atol=2e-4)
    assert not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert not any("norm" in key for key in fast.backbone.state_dict())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_keeps_places(family):
    """Features are rounded to 8 bits, points and boxes are not."""
    torch.manual_seed(0)
    model = instantiate(tiny(get_config(FAMILIES[family]).model)).eval()
    batch = [zoo.image(96, 128, [], []), zoo.image(128, 96, [], [], seed=1)]
    logits, boxes = predict(for_inference(model, torch.bfloat16), batch)
    assert logits.isfinite().all()
    assert boxes.dtype == torch.float32
    expected = predict(model, batch)[1]
    # Whatever the order: rounding may swap proposals.
    nearest = torch.cdist(expected, boxes, p=float("inf")).amin(-1)
    assert nearest.median() < 2**-7


def test_the_backbone_may_keep_its_precision():
    torch.manual_seed(0)
    model = instantiate(tiny(get_config(FAMILIES["dino"]).model)).eval()
    batch = [zoo.image(96, 128, [], [])]
    fast = for_inference(model, torch.bfloat16, backbone_dtype=torch.float32)
    features = {}
    fast.neck.register_forward_pre_hook(lambda _, args: features.update(args[0]))
    boxes = predict(fast, batch)[1]
    expected = model.backbone(fast.preprocess(batch)[0][None].float())
    for name, level in features.items():
        assert_close(level, expected[name].bfloat16(), rtol=2**-7, atol=1e-3)
    assert boxes.isfinite().all()
    dtypes = {name: {p.dtype for p in part.parameters()} for name, part in fast.named_children()}
    assert dtypes["backbone"] == {torch.float32}
    assert dtypes["neck"] == dtypes["transformer"] == {torch.bfloat16}


def test_a_dtype_for_the_backbone_alone_is_refused():
    with pytest.raises(ValueError, match=r"backbone_dtype=torch\.bfloat16 needs dtype"):
        for_inference(nn.Identity(), backbone_dtype=torch.bfloat16)


@pytest.mark.parametrize("implementation", [None, "pytorch"])
@pytest.mark.parametrize("family", ["conditional_detr", "dino"])
def test_it_compiles_as_a_whole(family, implementation):
    torch.manual_seed(0)
    model = instantiate(tiny(get_config(FAMILIES[family]).model)).eval()
    batch = [zoo.image(96, 128, [], [])]
    torch._dynamo.reset()
    with use_implementation(implementation):
        fast = for_inference(model, compile=True, fullgraph=True, backend="aot_eager")
        for actual, expected in zip(predict(fast, batch), predict(model, batch), strict=True):
            assert_close(actual, expected)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="linear layers stay as they are")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [(1, 1500), (2, 700), (3, 5), (0, 9)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_as_convolutions(dtype, tokens, bias, monkeypatch):
    torch.manual_seed(0)
    linear = nn.Linear(24, 40, bias=bias).to(dtype).requires_grad_(False)
    (convolved,) = for_inference(nn.Sequential(linear))
    assert type(linear) is nn.Linear
    x = torch.randn(24, *tokens).to(dtype).permute(1, 2, 0)  # of any layout
    convolutions = []
    conv2d = torch.nn.functional.conv2d
    monkeypatch.setattr(
        "torch.nn.functional.conv2d", lambda *args: convolutions.append(1) or conv2d(*args)
    )
    out = convolved(x)
    tolerance = 1e-6 if dtype == torch.float32 else 2**-7
    assert_close(out, linear(x), rtol=tolerance, atol=tolerance)
    assert out.is_contiguous()
    assert len(convolutions) == (math.prod(tokens) >= MANY_TOKENS)


def test_double_precision_has_no_fast_convolution():
    (layer,) = for_inference(nn.Sequential(nn.Linear(2, 3).double()))
    assert type(layer) is nn.Linear
