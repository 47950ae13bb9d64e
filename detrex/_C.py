"""The public detrex's compiled module by its name, for copies of its operator in users' code.

Such a copy imports ``detrex._C`` and calls these two from an autograd function of its own. Here
they are :func:`~detrex.layers.ms_deform_attn.ms_deform_attn`, whose kernels are compiled where they
run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detrex.layers.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

__all__ = ["ms_deform_attn_backward", "ms_deform_attn_forward"]


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int = 64,
) -> Tensor:
    """The weighted sums ``(B, Q, M * D)``.

    Args:
        value: ``(B, S, M, D)``, the levels one after another.
        spatial_shapes: ``(L, 2)`` heights and widths.
        level_start_index: of no use, as it follows from the shapes.
        sampling_locations: ``(B, Q, M, L, P, 2)`` as (x, y) in [0, 1].
        attention_weights: ``(B, Q, M, L, P)``.
        im2col_step: of no use.

    Letters: ``B`` batch, ``Q`` queries, ``S`` tokens, ``M`` heads, ``D`` channels of a head, ``L``
    levels, ``P`` points.
    """
    return MultiScaleDeformableAttnFunction.apply(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights, im2col_step
    )


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    im2col_step: int = 64,
) -> list[Tensor]:
    """Gradients of ``value``, ``sampling_locations`` and ``attention_weights``, given that of what
    :func:`ms_deform_attn_forward` returns."""
    tensors = (value, sampling_locations, attention_weights)
    with torch.enable_grad():
        value, locations, weights = (x.detach().requires_grad_() for x in tensors)
        out = ms_deform_attn_forward(value, spatial_shapes, level_start_index, locations, weights)
    return list(torch.autograd.grad(out, (value, locations, weights), grad_output))
