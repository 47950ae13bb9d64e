"""The two predictions of a decoder layer: which class, which box."""

from __future__ import annotations

import math

from torch import nn

from detrex.layers import MLP


class ClassHead(nn.Linear):
    """Class logits of a query: ``(..., embed_dim) -> (..., K)``.

    Args:
        embed_dim: channels of the query.
        num_classes: classes of the data set.
        no_object: add a last class "no object" and expect a softmax (DETR). Otherwise classes are
            independent, with a sigmoid each, and start at a probability of 0.01, so that the many
            queries without an object don't drown the others (focal loss, arXiv:1708.02002).
    """

    def __init__(self, embed_dim: int, num_classes: int, no_object: bool = False) -> None:
        self.no_object = no_object
        super().__init__(embed_dim, num_classes + no_object)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if not self.no_object:
            nn.init.constant_(self.bias, -math.log(99))


class BoxHead(MLP):
    """Box of a query as logits of cxcywh, or as a change of such logits: three linear layers.

    Args:
        embed_dim: channels of the query.
        zero_init: start by predicting no change (the deformable family).
        size_bias: logit of width and height to start with, if ``zero_init``.
    """

    def __init__(self, embed_dim: int, zero_init: bool = True, size_bias: float = 0.0) -> None:
        super().__init__(embed_dim, embed_dim, 4, num_layers=3)
        self.zero_init = zero_init
        self.size_bias = size_bias
        self.reset_parameters()

    def reset_parameters(self) -> None:
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer in linear:
            layer.reset_parameters()
        if self.zero_init:
            last = linear[-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            nn.init.constant_(last.bias[2:], self.size_bias)
