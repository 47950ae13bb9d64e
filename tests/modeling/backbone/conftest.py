from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


def unused_parameters(backbone: nn.Module, image: Tensor) -> list[str]:
    """Trainable parameters that a training step leaves without a gradient."""
    backbone.train()
    backbone.zero_grad()
    sum(feature.sum() for feature in backbone(image).values()).backward()
    return [k for k, p in backbone.named_parameters() if p.requires_grad and p.grad is None]


@pytest.fixture
def check_contract():
    """What a detector relies on, whatever the network."""

    def check(backbone: nn.Module) -> None:
        side = max(backbone.size_divisibility, 32)
        image = torch.randn(2, 3, side, 2 * side)
        promised = backbone.output_shape()
        features = backbone(image)
        assert sorted(features) == sorted(promised)
        for name, feature in features.items():
            shape = promised[name]
            height, width = side // shape.stride, 2 * side // shape.stride
            assert feature.shape == (2, shape.channels, height, width), name
            assert feature.is_contiguous(), name
        assert unused_parameters(backbone, image) == []

    return check
