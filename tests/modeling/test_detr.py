"""The meta-architecture's own switches."""

from __future__ import annotations

import pytest
import torch
import zoo
from detectron2.config import instantiate
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
