"""A transformer layer as a list of operations, and stacks of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

OPERATIONS = ("self_attn", "cross_attn", "norm", "ffn")


class BaseTransformerLayer(nn.Module):
    """Attentions, norms and feed-forward networks in the order given.

    Args:
        attn: one attention per attention operation, in order, or one that is copied for each.
            Attentions add their own residual.
        ffn: the feed-forward network, copied for each ``"ffn"``; adds its own residual.
        norm: the norm, copied for each ``"norm"``.
        operation_order: names out of ``self_attn, cross_attn, norm, ffn``. If the first is
            ``norm`` the layer is pre-norm: residuals then bypass the norms.
    """

    activation_checkpointing = False
    """Whether training keeps the layer's inputs alone and computes it again for the gradients: less
    memory for a third more time."""

    def __init__(
        self,
        attn: nn.Module | Sequence[nn.Module],
        ffn: nn.Module,
        norm: nn.Module,
        operation_order: Sequence[str],
    ):
        super().__init__()
        unknown = set(operation_order) - set(OPERATIONS)
        if unknown:
            raise ValueError(f"unknown operations {sorted(unknown)}; there are {OPERATIONS}.")
        count = {name: list(operation_order).count(name) for name in OPERATIONS}
        num_attn = count["self_attn"] + count["cross_attn"]
        if isinstance(attn, nn.Module):
            attn = [copy.deepcopy(attn) for _ in range(num_attn)]
        if len(attn) != num_attn:
            raise ValueError(f"{len(attn)} attentions for {num_attn} operations: {operation_order}")
        self.operation_order = tuple(operation_order)
        self.pre_norm = self.operation_order[0] == "norm"
        self.attentions = nn.ModuleList(attn)
        self.ffns = nn.ModuleList(copy.deepcopy(ffn) for _ in range(count["ffn"]))
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _ in range(count["norm"]))

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_masks: Tensor | Sequence[Tensor | None] | None = None,
        query_key_padding_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Runs the operations on ``query``, whose shape stays as it is.

        Args:
            query: the tokens, in the layout that the attentions expect.
            key, value: what cross-attention attends to.
            query_pos, key_pos: positions, added by the attentions.
            attn_masks: one mask per attention, or one for all; True forbids.
            query_key_padding_mask: ``(B, Q)``, True on padded queries (self-attention).
            key_padding_mask: ``(B, S)``, True on padded keys (cross-attention).
            kwargs: passed to every attention.
        """
        inputs = (query, key, value, query_pos, key_pos)
        masks = (attn_masks, query_key_padding_mask, key_padding_mask)
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._run, *inputs, *masks, use_reentrant=False, **kwargs)
        return self._run(*inputs, *masks, **kwargs)

    def _run(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        query_pos: Tensor | None,
        key_pos: Tensor | None,
        attn_masks: Tensor | Sequence[Tensor | None] | None,
        query_key_padding_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        **kwargs,
    ) -> Tensor:
        if attn_masks is None or isinstance(attn_masks, Tensor):
            attn_masks = [attn_masks] * len(self.attentions)
        attentions = zip(self.attentions, attn_masks, strict=True)
        norms, ffns = iter(self.norms), iter(self.ffns)
        identity = query
        for operation in self.operation_order:
            residual = identity if self.pre_norm else None
            if operation == "norm":
                query = next(norms)(query)
                continue
            if operation == "ffn":
                query = next(ffns)(query, residual)
            else:
                own = operation == "self_attn"
                attention, mask = next(attentions)
                query = attention(
                    query,
                    query if own else key,
                    query if own else value,
                    residual,
                    query_pos=query_pos,
                    key_pos=query_pos if own else key_pos,
                    attn_mask=mask,
                    key_padding_mask=query_key_padding_mask if own else key_padding_mask,
                    **kwargs,
                )
            identity = query
        return query


class TransformerLayerSequence(nn.Module):
    """``num_layers`` copies of one layer, or the layers given; subclasses write ``forward``."""

    def __init__(
        self,
        transformer_layers: nn.Module | Sequence[nn.Module],
        num_layers: int | None = None,
    ):
        super().__init__()
        if isinstance(transformer_layers, nn.Module):
            if num_layers is None:
                raise ValueError("num_layers is needed to repeat a single layer.")
            transformer_layers = [copy.deepcopy(transformer_layers) for _ in range(num_layers)]
        elif num_layers not in (None, len(transformer_layers)):
            raise ValueError(f"{len(transformer_layers)} layers given, num_layers={num_layers}.")
        self.layers = nn.ModuleList(transformer_layers)
        self.num_layers = len(self.layers)
