"""The encoder loop."""

from __future__ import annotations

import copy

from torch import nn

from detrex.layers.checkpointing import checkpointed
from detrex.modeling.memory import Memory


class Encoder(nn.Module):
    """Copies of one layer, one after another, on the tokens of a :class:`Memory`.

    Args:
        layer: a transformer layer that takes the keyword arguments below; copied.
        num_layers: number of copies.
        pos_scale: scales the positions of the tokens by a function of them (DAB-DETR,
            arXiv:2201.12329).
        activation_checkpointing: in training compute each layer twice rather than keep what it
            holds.
    """

    def __init__(
        self,
        layer: nn.Module,
        num_layers: int,
        pos_scale: nn.Module | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.pos_scale = pos_scale
        self.activation_checkpointing = activation_checkpointing

    def forward(self, memory: Memory) -> Memory:
        tokens = memory.tokens
        references = memory.per_level(memory.cell_centers())
        for layer in self.layers:
            pos = memory.pos
            if self.pos_scale is not None:
                pos = pos * self.pos_scale(tokens)
            tokens = checkpointed(
                layer,
                tokens,
                enabled=self.activation_checkpointing,
                query_pos=pos,
                query_key_padding_mask=memory.padding,
                key_padding_mask=memory.padding,
                reference_points=references,
                spatial_shapes=memory.shapes,
            )
        return memory._replace(tokens=tokens)
