"""The meta-architecture's own switches."""

from __future__ import annotations

import pytest
import torch
import zoo
from detectron2.config import instantiate
from torch import nn
from torch.testing import assert_close
from toy_models import FAMILIES, tiny

from detrex.config import get_config


def gradients(family: str, **options) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients by parameter, and the bytes that autograd keeps for them."""
    torch.manual_seed(0)
    config = tiny(get_config(FAMILIES[family]).model)
    config.transformer.encoder.layer.dropout = config.transformer.decoder.layer.dropout = 0.1
    config.update(options)
    model = instantiate(config).train()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)  # dropout and denoising draw the same
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model([zoo.image(96, 128, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2])])
    sum(losses.values()).backward()
    return {n: p.grad for n, p in model.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("family", ["detr", "conditional_detr", "dino"])
def test_activation_checkpointing_changes_memory_alone(family):
    expected, kept = gradients(family)
    actual, kept_less = gradients(family, activation_checkpointing=True)
    for name, grad in expected.items():
        assert_close(actual[name], grad, msg=lambda text, name=name: f"{name}: {text}")
    assert kept_less < 0.7 * kept


class PixelNeck(nn.Module):
    """Gives its finest map as pixel features, and the others as levels."""

    num_pixel_levels = 1

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def connect(self, output_shape) -> None:
        self.neck.connect(output_shape)

    def forward(self, features):
        return self.neck(features)


def test_a_neck_may_give_pixel_features():
    """They reach the memory as maps, padded to the batch, and are no tokens."""
    torch.manual_seed(0)
    config = tiny(get_config(FAMILIES["dino"]).model)
    config.transformer.num_levels = 4
    config.neck = {
        "_target_": PixelNeck,
        "neck": {**config.neck, "out_channels": 64, "num_outs": 5},
    }
    config.neck.neck.norm_layer.num_channels = 64
    model = instantiate(config).eval()
    seen = {}
    model.transformer.encoder.register_forward_pre_hook(lambda _, args: seen.update(m=args[0]))
    batch = [zoo.image(64, 96, [], []), zoo.image(96, 64, [], [], seed=1)]
    model(batch)
    memory = seen["m"]
    assert memory.shapes[0] == (6, 6) and len(memory.shapes) == 4
    assert memory.tokens.shape[1] == sum(h * w for h, w in memory.shapes)
    (pixels,) = memory.pixels
    assert pixels.shape == (2, 64, 12, 12)
    for i, (height, width) in enumerate([(8, 12), (12, 8)]):
        alone = model.neck(model.backbone(model.preprocess(batch)[i][None]))[0][0]
        assert_close(pixels[i, :, :height, :width], alone[:, :height, :width])
        assert pixels[i, :, height:].eq(0).all() and pixels[i, :, :, width:].eq(0).all()
    assert len(model.detect(torch.rand(2, 3, 64, 96))) == 3
