"""A transformer layer as a list of operations, and stacks of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from detrex.layers.keywords import check_keywords, taken
from detrex.utils.errors import InvalidArgument

OPERATIONS = ("self_attn", "cross_attn", "norm", "ffn")


class BaseTransformerLayer(nn.Module):
    """Attentions, norms and feed-forward networks in the order given.

    Args:
        attn: one attention per attention operation, in order, or one that is copied for each.
            Attentions add their own residual. They are called with query, key, value and identity,
            and of the other arguments get those that their ``forward`` names, or all of them if
            it takes ``**kwargs``.
        ffn: the feed-forward network, copied for each ``"ffn"``; adds its own residual.
        norm: the norm, copied for each ``"norm"``.
        operation_order: names out of ``self_attn, cross_attn, norm, ffn``. If the first is
            ``norm`` the layer is pre-norm: residuals then bypass the norms.

    ``embed_dim`` is that of the first attention; None if it says none.
    """

    in_foreign_loop = False
    """Whether a :class:`TransformerLayerSequence` runs the layer. Its loop is somebody's own, and
    may offer to all layers what only some of them take."""

    def __init__(
        self,
        attn: nn.Module | Sequence[nn.Module],
        ffn: nn.Module,
        norm: nn.Module,
        operation_order: Sequence[str],
    ) -> None:
        super().__init__()
        unknown = set(operation_order) - set(OPERATIONS)
        if unknown:
            raise ValueError(f"There are no operations {sorted(unknown)}, only {OPERATIONS}.")
        count = {name: list(operation_order).count(name) for name in OPERATIONS}
        num_attn = count["self_attn"] + count["cross_attn"]
        if isinstance(attn, nn.Module):
            attn = [copy.deepcopy(attn) for _ in range(num_attn)]
        if len(attn) != num_attn:
            raise InvalidArgument(
                f"There are {len(attn)} attentions for {num_attn} operations: {operation_order}."
            )
        self.operation_order = tuple(operation_order)
        self.pre_norm = self.operation_order[0] == "norm"
        self.num_attn = num_attn
        self.attentions = nn.ModuleList(attn)
        self.embed_dim = getattr(next(iter(attn), None), "embed_dim", None)
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
        **kwargs: Any,
    ) -> Tensor:
        """Runs the operations on ``query``, whose shape stays as it is.

        Args:
            query: the tokens, in the layout that the attentions expect.
            key, value: what cross-attention attends to.
            query_pos, key_pos: positions, added by the attentions.
            attn_masks: one mask per attention, or one for all; True forbids.
            query_key_padding_mask: ``(B, Q)``, True on padded queries (self-attention).
            key_padding_mask: ``(B, S)``, True on padded keys (cross-attention).
            kwargs: for the attentions that take them.

        Raises:
            TypeError: no attention takes a keyword that is not one of
                :data:`~detrex.layers.keywords.CONTEXT`.
        """
        check_keywords(kwargs, self.attentions, self.in_foreign_loop)
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
                given = kwargs | {
                    "query_pos": query_pos,
                    "key_pos": query_pos if own else key_pos,
                    "attn_mask": mask,
                    "key_padding_mask": query_key_padding_mask if own else key_padding_mask,
                }
                names = taken(type(attention))
                if names is not None:
                    given = {name: given[name] for name in given if name in names}
                keys = (query, query) if own else (key, value)
                query = attention(query, *keys, residual, **given)
            identity = query
        return query


class TransformerLayerSequence(nn.Module):
    """``num_layers`` copies of one layer, or the layers given; subclasses write ``forward``."""

    def __init__(
        self,
        transformer_layers: nn.Module | Sequence[nn.Module],
        num_layers: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(transformer_layers, nn.Module):
            if num_layers is None:
                raise InvalidArgument("A single layer needs num_layers, the number of its copies.")
            transformer_layers = [copy.deepcopy(transformer_layers) for _ in range(num_layers)]
        elif num_layers not in (None, len(transformer_layers)):
            raise InvalidArgument(
                f"There are {len(transformer_layers)} layers, but num_layers is {num_layers}."
            )
        self.layers = nn.ModuleList(transformer_layers)
        self.num_layers = len(self.layers)
        for layer in self.layers:
            if isinstance(layer, BaseTransformerLayer):
                layer.in_foreign_loop = True
