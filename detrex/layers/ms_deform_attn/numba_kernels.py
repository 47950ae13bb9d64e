"""The CPU kernels: machine code made by numba at the first use and kept in its cache.

Each thread takes some of the queries (forward), or some heads of some images (backward): every
number is written by one thread alone, so results don't depend on their number. Points are computed
in double precision. Letters as in :mod:`detrex.layers.ms_deform_attn.op`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from detrex.layers.ms_deform_attn.simd import FAST_MATH, axpy, dot, load, store, zeros
from detrex.layers.ms_deform_attn.threads import in_parallel

MIN_QUERIES = 64
"""Fewer are not worth a thread of their own."""


def _jit(function: Callable) -> Callable:
    """Compiled at the first call for each dtype, without the GIL, and cached where possible."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(FAST_MATH)}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return njit(**options)(function)


@_jit
def _corners(x, y, height, width):
    """Columns and rows of the four cells around a point, kept on the map, and their shares, zero
    for what is beyond the border: ``((left, right), (top, bottom))`` three times.

    The last of the three are the signs of the shares: what they change by with the point.
    """
    left, top = math.floor(x), math.floor(y)
    columns = max(left, 0), min(left + 1, width - 1)
    rows = max(top, 0), min(top + 1, height - 1)
    slope_x = -1.0 if left >= 0 else 0.0, 1.0 if left + 1 < width else 0.0
    slope_y = -1.0 if top >= 0 else 0.0, 1.0 if top + 1 < height else 0.0
    share_x = (x - left - 1) * slope_x[0], (x - left) * slope_x[1]
    share_y = (y - top - 1) * slope_y[0], (y - top) * slope_y[1]
    return (columns, rows), (share_x, share_y), (slope_x, slope_y)


@functools.cache
def _forward_kernel(channels: int) -> Callable:
    """The forward kernel for heads of so many channels ``D``."""

    @_jit
    def forward(value, levels, locations, weights, out, begin, end):
        """Writes ``out`` for the queries from ``begin`` to ``end``, counted over the batch."""
        _, num_tokens, num_heads, _ = value.shape
        _, num_queries, _, num_points, _ = locations.shape
        value_rows, out_rows = value.reshape(-1), out.reshape(-1)
        points, point_weights = locations.reshape(-1, 2), weights.reshape(-1)
        i = begin * num_heads * num_points
        for query in range(begin, end):
            for head in range(num_heads):
                total = zeros(out_rows, channels)
                first = query // num_queries * num_tokens  # token of the image, then of the level
                for level in range(len(levels)):
                    height, width = levels[level, 0], levels[level, 1]
                    for _ in range(levels[level, 2]):
                        x = points[i, 0] * np.float64(width) - 0.5
                        y = points[i, 1] * np.float64(height) - 0.5
                        if -1 < x < width and -1 < y < height:  # false for NaN
                            cells, shares, _ = _corners(x, y, height, width)
                            for row, share_y in zip(cells[1], shares[1]):
                                for column, share_x in zip(cells[0], shares[0]):
                                    index = (first + row * width + column) * num_heads + head
                                    weight = point_weights[i] * share_x * share_y
                                    total = axpy(weight, load(value_rows, index, channels), total)
                        i += 1
                    first += height * width
                store(out_rows, query * num_heads + head, total)

    return forward


@functools.cache
def _backward_kernel(channels: int) -> Callable:
    """The backward kernel for heads of so many channels ``D``."""

    @_jit
    def backward(
        grad, value, levels, locations, weights, grad_value, grad_points, grad_weights, begin, end
    ):
        """Adds to the gradients for the heads from ``begin`` to ``end``, counted over the batch."""
        _, num_tokens, num_heads, _ = value.shape
        _, num_queries, _, num_points, _ = locations.shape
        value_rows, grad_rows = value.reshape(-1), grad.reshape(-1)
        grad_value_rows = grad_value.reshape(-1)
        points, point_weights = locations.reshape(-1, 2), weights.reshape(-1)
        grad_point, grad_weight = grad_points.reshape(-1, 2), grad_weights.reshape(-1)
        for image_head in range(begin, end):
            image, head = divmod(image_head, num_heads)
            for query in range(image * num_queries, (image + 1) * num_queries):
                query_head = query * num_heads + head
                cotangent = load(grad_rows, query_head, channels)
                i = query_head * num_points
                first = image * num_tokens  # token of the image, then of the level
                for level in range(len(levels)):
                    height, width = levels[level, 0], levels[level, 1]
                    for _ in range(levels[level, 2]):
                        x = points[i, 0] * np.float64(width) - 0.5
                        y = points[i, 1] * np.float64(height) - 0.5
                        by_x, by_y, by_weight = 0.0, 0.0, 0.0
                        if -1 < x < width and -1 < y < height:  # false for NaN
                            cells, shares, slopes = _corners(x, y, height, width)
                            for row, share_y, slope_y in zip(cells[1], shares[1], slopes[1]):
                                for column, share_x, slope_x in zip(cells[0], shares[0], slopes[0]):
                                    index = (first + row * width + column) * num_heads + head
                                    along = dot(cotangent, load(value_rows, index, channels))
                                    by_weight += share_x * share_y * along
                                    by_x += slope_x * share_y * along
                                    by_y += share_x * slope_y * along
                                    so_far = load(grad_value_rows, index, channels)
                                    share = point_weights[i] * share_x * share_y
                                    store(grad_value_rows, index, axpy(share, cotangent, so_far))
                        grad_weight[i] = by_weight
                        grad_point[i, 0] = by_x * point_weights[i] * width
                        grad_point[i, 1] = by_y * point_weights[i] * height
                        i += 1
                    first += height * width

    return backward


def _array(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    return tensor.detach().to(dtype).contiguous().numpy()


def _rows(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    """An array that is loaded as vectors of ``dtype``: of bfloat16 its bits, see :func:`load`."""
    if tensor.dtype == torch.bfloat16 and dtype == torch.float32:
        return _array(tensor.detach().view(torch.int16), torch.int16)
    return _array(tensor, dtype)


def _inputs(
    value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[torch.dtype, list[np.ndarray]]:
    """Single or double precision, and the inputs in it."""
    dtype = torch.promote_types(value.dtype, locations.dtype)
    rows = np.array(levels, dtype=np.int64).reshape(-1, 3)
    return dtype, [_rows(value, dtype), rows, _array(locations, dtype), _array(weights, dtype)]


def forward(value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """``(B, S, M, D)``, ``L`` times height, width and number of points, ``(B, Q, M, N, 2)``,
    ``(B, Q, M, N)`` -> ``(B, Q, M * D)`` in the dtype of ``value``."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    if batch * queries == 0:
        return value.new_zeros(batch, queries, heads * channels)
    dtype, inputs = _inputs(value, levels, locations, weights)
    out = torch.empty(batch, queries, heads * channels, dtype=dtype)
    kernel, result = _forward_kernel(channels), out.numpy()
    in_parallel(lambda i, j: kernel(*inputs, result, i, j), batch * queries, MIN_QUERIES)
    return out.to(value.dtype)


def backward(
    grad: Tensor, value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, locations and weights, each in the dtype of its own, given that of the
    result."""
    batch, _, heads, channels = value.shape
    dtype, inputs = _inputs(value, levels, locations, weights)
    grads = [torch.zeros(x.shape, dtype=dtype) for x in (value, locations, weights)]
    if grad.numel():
        cotangent, results = _rows(grad, dtype), [x.numpy() for x in grads]
        kernel = _backward_kernel(channels)
        work = lambda i, j: kernel(cotangent, *inputs, *results, i, j)  # noqa: E731
        in_parallel(work, batch * heads)
    by_value, by_location, by_weight = grads
    return by_value.to(value.dtype), by_location.to(locations.dtype), by_weight.to(weights.dtype)
