"""Activation checkpointing changes memory alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detrex.layers import FFN, BaseTransformerLayer, MultiheadAttention, checkpointed

TOKENS = torch.randn(6, 2, 16, generator=torch.Generator().manual_seed(0))


class CustomLayer(nn.Module):
    """A layer of somebody else, which knows nothing of checkpointing, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Dropout(), nn.Linear(64, 16))

    def forward(self, query: Tensor, *, query_pos: Tensor) -> Tensor:
        return query + self.layers(query + query_pos)


def own_layer() -> BaseTransformerLayer:
    attention, ffn = MultiheadAttention(16, 4, 0.5), FFN(16, 64, ffn_drop=0.5)
    return BaseTransformerLayer(attention, ffn, nn.LayerNorm(16), ("self_attn", "norm", "ffn"))


def run(layer: nn.Module, enabled: bool) -> tuple[Tensor, list[Tensor], int]:
    """The result, the gradients of tokens and parameters, and the bytes kept for them."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)  # dropout draws the same
    tokens = TOKENS.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = checkpointed(layer, tokens, query_pos=TOKENS.flip(0), enabled=enabled)
    grads = torch.autograd.grad(out.square().sum(), [tokens, *layer.parameters()])
    return out, list(grads), sum(kept.values())


@pytest.mark.parametrize("make", [own_layer, CustomLayer])
def test_it_changes_memory_alone(make):
    layer = make()
    out, grads, kept = run(layer, enabled=False)
    same_out, same_grads, kept_less = run(layer, enabled=True)
    assert torch.equal(same_out, out)
    assert all(map(torch.equal, same_grads, grads))
    assert kept_less < 0.7 * kept


class Counted(nn.Linear):
    """A linear layer that counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize(("enabled", "training"), [(True, True), (True, False), (False, True)])
def test_only_training_runs_a_layer_twice(enabled, training):
    layer = Counted(16, 16).train(training)
    checkpointed(layer, TOKENS, enabled=enabled).sum().backward()
    assert layer.calls == (2 if enabled and training else 1)
    layer.calls = 0
    with torch.no_grad():
        checkpointed(layer, TOKENS, enabled=enabled)
    assert layer.calls == 1
