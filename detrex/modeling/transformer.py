"""Features -> memory -> queries -> predictions of every layer: the same four steps in all DETRs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from detrex.layers import (
    FFN,
    BaseTransformerLayer,
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    MultiheadAttention,
    MultiScaleDeformableAttention,
)
from detrex.modeling.decoder import Decoder
from detrex.modeling.encoder import Encoder
from detrex.modeling.initialization import initialize
from detrex.modeling.levels import Levels
from detrex.modeling.memory import flatten_levels
from detrex.modeling.predictions import Prediction, Targets
from detrex.modeling.predictor import LayerOutput
from detrex.modeling.queries import Queries

ENCODER_ORDER = ("self_attn", "norm", "ffn", "norm")
DECODER_ORDER = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")


def _layer(
    attn: nn.Module | list[nn.Module],
    embed_dim: int,
    feedforward_dim: int,
    dropout: float,
    activation: nn.Module | None = None,
    order: Sequence[str] = DECODER_ORDER,
) -> BaseTransformerLayer:
    """What the layers below share."""
    return BaseTransformerLayer(
        attn=attn,
        ffn=FFN(embed_dim, feedforward_dim, ffn_drop=dropout, activation=activation),
        norm=nn.LayerNorm(embed_dim),
        operation_order=order,
    )


def encoder_layer(
    embed_dim: int = 256,
    num_heads: int = 8,
    feedforward_dim: int = 2048,
    dropout: float = 0.1,
    activation: nn.Module | None = None,
) -> BaseTransformerLayer:
    """An encoder layer with full attention (DETR, arXiv:2005.12872)."""
    attn = MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
    return _layer(attn, embed_dim, feedforward_dim, dropout, activation, ENCODER_ORDER)


def decoder_layer(
    embed_dim: int = 256,
    num_heads: int = 8,
    feedforward_dim: int = 2048,
    dropout: float = 0.1,
    activation: nn.Module | None = None,
) -> BaseTransformerLayer:
    """A decoder layer with full attention (DETR, arXiv:2005.12872)."""
    attn = MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
    return _layer(attn, embed_dim, feedforward_dim, dropout, activation)


def conditional_decoder_layer(
    embed_dim: int = 256,
    num_heads: int = 8,
    feedforward_dim: int = 2048,
    dropout: float = 0.1,
    activation: nn.Module | None = None,
) -> BaseTransformerLayer:
    """A decoder layer that keeps content and position apart (Conditional DETR,
    arXiv:2108.06152)."""
    kinds = (ConditionalSelfAttention, ConditionalCrossAttention)
    attn: list[nn.Module] = [
        kind(embed_dim, num_heads, dropout, batch_first=True) for kind in kinds
    ]
    return _layer(attn, embed_dim, feedforward_dim, dropout, activation)


def deformable_encoder_layer(
    embed_dim: int = 256,
    num_heads: int = 8,
    feedforward_dim: int = 1024,
    dropout: float = 0.1,
    num_levels: int = 4,
    num_points: int | Sequence[int] = 4,
) -> BaseTransformerLayer:
    """An encoder layer with deformable attention (Deformable DETR, arXiv:2010.04159)."""
    attn = MultiScaleDeformableAttention(
        embed_dim, num_heads, num_levels, num_points, dropout=dropout, batch_first=True
    )
    return _layer(attn, embed_dim, feedforward_dim, dropout, order=ENCODER_ORDER)


def deformable_decoder_layer(
    embed_dim: int = 256,
    num_heads: int = 8,
    feedforward_dim: int = 1024,
    dropout: float = 0.1,
    num_levels: int = 4,
    num_points: int | Sequence[int] = 4,
) -> BaseTransformerLayer:
    """A decoder layer: full attention among queries, deformable attention to the memory."""
    attn = [
        MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True),
        MultiScaleDeformableAttention(
            embed_dim, num_heads, num_levels, num_points, dropout=dropout, batch_first=True
        ),
    ]
    return _layer(attn, embed_dim, feedforward_dim, dropout)


class DetrTransformer(nn.Module):
    """Encoder, queries and decoder.

    Args:
        encoder: maps a memory to a memory.
        queries: maps the encoded memory to the queries of the decoder (seam 1).
        decoder: maps queries and memory to the predictions of its layers.
        groups: by name, what adds queries for training (seam 3): each maps queries, and the
            targets or None at evaluation, to queries.
        num_levels: feature levels that get an embedding of their own; 0 for single-level models.
        embed_dim: channels ``C`` of that embedding.
    """

    def __init__(
        self,
        encoder: Encoder,
        queries: nn.Module,
        decoder: Decoder,
        num_levels: int = 0,
        embed_dim: int = 256,
        groups: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.queries = queries
        self.groups = nn.ModuleDict(groups or {})
        self.decoder = decoder
        self.level_embeds = None
        if num_levels:
            self.level_embeds = nn.Parameter(torch.empty(num_levels, embed_dim))
        initialize(self)

    def reset_parameters(self) -> None:
        """Normal level embeddings; :func:`.initialize` asks everything inside before."""
        if self.level_embeds is not None:
            nn.init.normal_(self.level_embeds)

    def forward(self, levels: Levels, targets: Targets | None = None) -> list[Prediction]:
        """Predictions of the last decoder layer, of the others in order, of the encoder; then, in
        training, those of the further groups of queries.

        Args:
            levels: feature levels with their positions.
            targets: what to train for; None at evaluation.
        """
        memory = self.encoder(flatten_levels(levels, self.level_embeds))
        queries: Queries = self.queries(memory)
        for group in self.groups.values():
            queries = group(queries, targets)
        matching, *others = by_group(queries, self.decoder(queries, memory))
        return [*matching, *queries.predictions, *(p for group in others for p in group)]


def by_group(queries: Queries, outputs: Sequence[LayerOutput]) -> list[list[Prediction]]:
    """Per group of queries the predictions of the last layer and then of the others in order."""
    groups = queries.members()
    layers = [output.split([group.size for group in groups]) for output in outputs]
    order = [-1, *range(len(outputs) - 1)]
    return [
        [
            Prediction(
                layers[i][place].logits,
                layers[i][place].boxes,
                group.suffix.format(layer="" if i == -1 else f"_{i}"),
                group.supervision,
                auxiliary=i != -1,
                extras=layers[i][place].extras,
            )
            for i in order
        ]
        for place, group in enumerate(groups)
    ]
