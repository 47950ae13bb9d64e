"""Multi-layer perceptrons: the prediction heads and the feed-forward half of a layer."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from detrex.utils.errors import InvalidArgument


class MLP(nn.Module):
    """Linear layers with ReLU in between: ``(..., input_dim) -> (..., output_dim)``."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.num_layers = num_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FFN(nn.Module):
    """The feed-forward network of a transformer layer, with its residual connection.

    Args:
        embed_dim: width of the input.
        feedforward_dim: width of the hidden layers.
        output_dim: width of the output; ``embed_dim`` if not given. A different width needs
            ``add_identity=False``, or an ``identity`` of that width.
        num_fcs: number of linear layers, at least 2.
        activation: applied after every linear layer but the last.
        ffn_drop: dropout after every linear layer.
        fc_bias: whether the linear layers have a bias.
        add_identity: whether the input (or ``identity``) is added to the result.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        feedforward_dim: int = 1024,
        output_dim: int | None = None,
        num_fcs: int = 2,
        activation: nn.Module | None = None,
        ffn_drop: float = 0.0,
        fc_bias: bool = True,
        add_identity: bool = True,
    ) -> None:
        super().__init__()
        if num_fcs < 2:
            raise InvalidArgument(f"FFN needs at least 2 linear layers, got num_fcs={num_fcs}.")
        self.embed_dim = embed_dim
        self.feedforward_dim = feedforward_dim
        self.num_fcs = num_fcs
        self.add_identity = add_identity
        self.activation = activation if activation is not None else nn.ReLU(inplace=True)
        widths = [embed_dim] + [feedforward_dim] * (num_fcs - 1)
        blocks: list[nn.Module] = [
            nn.Sequential(nn.Linear(a, b, bias=fc_bias), self.activation, nn.Dropout(ffn_drop))
            for a, b in pairwise(widths)
        ]
        blocks.append(nn.Linear(feedforward_dim, output_dim or embed_dim, bias=fc_bias))
        blocks.append(nn.Dropout(ffn_drop))
        self.layers = nn.Sequential(*blocks)

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """``(..., embed_dim) -> (..., output_dim)``; ``identity`` replaces ``x`` in the sum."""
        # As a matrix: in more dimensions a linear layer returns a view, and changing that in place,
        # as the activation does, makes autograd copy every gradient.
        out = self.layers(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        if not self.add_identity:
            return out
        return (x if identity is None else identity) + out
