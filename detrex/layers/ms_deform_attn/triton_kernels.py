"""The GPU kernels, in Triton, which comes with torch: compiled at the first use and kept on disk.

A program computes a few queries of one head of one image, in one warp: its tensors have a row for
each query and a column for each channel, so that a cell is read in one go, and rows are so many
that each thread has a handful of channels. Level sizes are plain arguments: a new image size
compiles nothing, copies nothing and waits for nothing. Points and sums have single precision, or
double where an input has. Letters as in :mod:`detrex.layers.ms_deform_attn.op`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(
        "Triton is not installed; it comes with torch for GPUs on Linux (on Windows: "
        f"pip install triton-windows): {error}"
    ) from error

OLDEST_TRITON = (3, 3)
"""The first that takes tuples as arguments; torch 2.7 brought it."""

THREADS = 32
"""In a warp. Programs of one warp need neither barriers nor shared memory for their sums."""

DETERMINISTIC_BITS = 61
"""Of the integers that gradients are added up in where the order must not matter."""


def _check_triton() -> None:
    """Raises ImportError where kernels could not run."""
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST_TRITON:
        raise ImportError(f"Triton {triton.__version__} is too old: 3.3 is needed (torch 2.7).")
    if not torch.cuda.is_available():
        return  # nothing to run on yet; the interpreter for tests needs no GPU
    try:
        target = triton.runtime.driver.active.get_current_target()
    except Exception as error:
        raise ImportError(
            "Triton can't start on this GPU; at the first start it needs a C compiler (gcc or "
            f"clang) and Python's headers: {error}"
        ) from error
    if target.backend == "cuda" and target.arch < 70:
        raise ImportError("Triton needs a GPU of compute capability 7.0 (Volta) or newer.")


_check_triton()


@triton.jit
def _point(locations, weights, index, mask, height, width, DTYPE: tl.constexpr):
    """Of the queries' points: column, row, weight and whether it can touch the map; the column and
    row of those that can't, or are NaN, become 0."""
    x = tl.load(locations + 2 * index, mask=mask, other=0).to(DTYPE) * width - 0.5
    y = tl.load(locations + 2 * index + 1, mask=mask, other=0).to(DTYPE) * height - 0.5
    weight = tl.load(weights + index, mask=mask, other=0).to(DTYPE)
    inside = mask & (x > -1) & (x < width) & (y > -1) & (y < height)  # false for NaN
    zero = tl.zeros_like(x)
    return tl.where(inside, x, zero), tl.where(inside, y, zero), weight, inside


@triton.jit
def _corner(x, y, right: tl.constexpr, below: tl.constexpr, inside, height, width):
    """Of one of the four cells around the queries' points: its token within the level, the shares
    by column and by row, and whether it is on the map."""
    left, top = tl.floor(x), tl.floor(y)
    column, row = left.to(tl.int32) + right, top.to(tl.int32) + below
    share_x = x - left if right else left + 1 - x
    share_y = y - top if below else top + 1 - y
    on_map = inside & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return row * width + column, share_x, share_y, on_map


@triton.jit(do_not_specialize=["num_tokens", "num_queries"])
def _forward_kernel(
    value,
    locations,
    weights,
    out,
    sizes,
    num_tokens,
    num_queries,
    M: tl.constexpr,
    D: tl.constexpr,
    POINTS: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    image, head = (tl.program_id(1) // M).to(tl.int64), tl.program_id(1) % M
    first_row = image * num_queries * M + head
    value += (image * num_tokens * M + head) * D
    locations += first_row * (N * 2)
    weights += first_row * N
    query = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = query < num_queries
    channel = tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros([ROWS, COLUMNS], DTYPE)
    start = 0  # of the level, in tokens
    first = 0  # of the level, in points
    for level in tl.static_range(len(POINTS)):
        height, width = tl.cast(sizes[2 * level], tl.int32), tl.cast(sizes[2 * level + 1], tl.int32)
        for point in range(POINTS[level]):
            index = query * (M * N) + first + point
            x, y, weight, inside = _point(locations, weights, index, real, height, width, DTYPE)
            for i in tl.static_range(4):
                cell, share_x, share_y, on_map = _corner(x, y, i % 2, i // 2, inside, height, width)
                offset = (start + cell)[:, None] * (M * D) + channel
                mask = on_map[:, None] & (channel < D)
                row = tl.load(value + offset, mask=mask, other=0).to(DTYPE)
                total += (weight * share_x * share_y)[:, None] * row
        start += height * width
        first += POINTS[level]
    out += first_row * D + query[:, None] * (M * D) + channel
    tl.store(out, total, mask=real[:, None] & (channel < D))


@triton.jit(do_not_specialize=["num_tokens", "num_queries"])
def _backward_kernel(
    grad,
    value,
    locations,
    weights,
    grad_value,
    grad_locations,
    grad_weights,
    unit,
    sizes,
    num_tokens,
    num_queries,
    M: tl.constexpr,
    D: tl.constexpr,
    POINTS: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    image, head = (tl.program_id(1) // M).to(tl.int64), tl.program_id(1) % M
    first_row = image * num_queries * M + head
    value += (image * num_tokens * M + head) * D
    grad_value += (image * num_tokens * M + head) * D
    locations += first_row * (N * 2)
    grad_locations += first_row * (N * 2)
    weights += first_row * N
    grad_weights += first_row * N
    query = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = query < num_queries
    channel = tl.arange(0, COLUMNS)[None, :]
    grad += first_row * D + query[:, None] * (M * D) + channel
    cotangent = tl.load(grad, mask=real[:, None] & (channel < D), other=0).to(DTYPE)
    start = 0  # of the level, in tokens
    first = 0  # of the level, in points
    for level in tl.static_range(len(POINTS)):
        height, width = tl.cast(sizes[2 * level], tl.int32), tl.cast(sizes[2 * level + 1], tl.int32)
        for point in range(POINTS[level]):
            index = query * (M * N) + first + point
            x, y, weight, inside = _point(locations, weights, index, real, height, width, DTYPE)
            by_x, by_y, by_weight = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
            for i in tl.static_range(4):
                cell, share_x, share_y, on_map = _corner(x, y, i % 2, i // 2, inside, height, width)
                offset = (start + cell)[:, None] * (M * D) + channel
                mask = on_map[:, None] & (channel < D)
                row = tl.load(value + offset, mask=mask, other=0).to(DTYPE)
                along = tl.sum(cotangent * row, 1)
                by_weight += share_x * share_y * along
                by_x += (2 * (i % 2) - 1) * share_y * along
                by_y += (2 * (i // 2) - 1) * share_x * along
            tl.store(grad_weights + index, by_weight, mask=real)
            tl.store(grad_locations + 2 * index, by_x * weight * width, mask=real)
            tl.store(grad_locations + 2 * index + 1, by_y * weight * height, mask=real)
            for i in tl.static_range(4):  # on their own: reads could not overtake additions
                cell, share_x, share_y, on_map = _corner(x, y, i % 2, i // 2, inside, height, width)
                offset = (start + cell)[:, None] * (M * D) + channel
                mask = on_map[:, None] & (channel < D)
                added = (weight * share_x * share_y)[:, None] * cotangent
                if unit is not None:
                    added = (added.to(tl.float64) / tl.load(unit)).to(tl.int64)
                tl.atomic_add(grad_value + offset, added, mask=mask, sem="relaxed")
        start += height * width
        first += POINTS[level]


def _dtype(value: Tensor, locations: Tensor) -> torch.dtype:
    """Of points and sums."""
    double = torch.float64 in (value.dtype, locations.dtype)
    return torch.float64 if double else torch.float32


def _launch(
    kernel,
    tensors: Sequence[Tensor | None],
    value: Tensor,
    levels: Sequence[int],
    locations: Tensor,
    numbers: int,
) -> None:
    """Runs a kernel with so many rows that each thread has ``numbers`` channels, or one row.

    Raises:
        ValueError: an image, or the batch, is too large.
    """
    batch, num_tokens, heads, channels = value.shape
    queries, points = locations.shape[1], tuple(levels[2::3])
    largest = max(num_tokens * heads * channels, queries * heads * channels, locations[0].numel())
    if largest >= 2**31 or batch * heads >= 2**16:
        raise ValueError(
            f"values {tuple(value.shape)} and locations {tuple(locations.shape)} are too large "
            "for the Triton kernels, which count to 2**31 within an image and to 2**16 heads of "
            "all images; DETREX_MS_DEFORM_ATTN=pytorch takes them."
        )
    columns = triton.next_power_of_2(channels)
    rows = max(1, THREADS * numbers // columns)
    # Triton would compile variants for integers.
    sizes = tuple(float(levels[i]) for i in range(len(levels)) if i % 3 < 2)
    dtype = tl.float64 if _dtype(value, locations) == torch.float64 else tl.float32
    with torch.cuda.device_of(value):
        kernel[triton.cdiv(queries, rows), batch * heads](
            *tensors,
            *(sizes, num_tokens, queries),
            *(heads, channels, points, sum(points), rows, columns, dtype),
            num_warps=1,
        )


def forward(value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """``(B, S, M, D)``, ``L`` times height, width and number of points, ``(B, Q, M, N, 2)``,
    ``(B, Q, M, N)`` -> ``(B, Q, M * D)`` in the dtype of ``value``."""
    batch, _, heads, channels = value.shape
    out = value.new_empty(batch, locations.shape[1], heads * channels)
    if out.numel():
        inputs = [x.contiguous() for x in (value, locations, weights)]
        numbers = 16 // value.element_size()  # 128 bits, the widest a thread can read
        _launch(_forward_kernel, [*inputs, out], value, levels, locations, numbers)
    return out


def _added_at_once(sums: Tensor) -> int:
    """How many numbers a thread can add to memory in one go: four in single precision since
    Hopper. Before, one for each, side by side with those of its neighbours."""
    vectors = sums.is_cuda and not torch.version.hip and sums.dtype == torch.float32
    return 4 if vectors and torch.cuda.get_device_capability(sums.device) >= (9, 0) else 1


def _unit(grad: Tensor, weights: Tensor, levels: Sequence[int]) -> Tensor:
    """What gradients of values are counted in, so that integers hold the sum of all: ``()``.

    A point adds at most its weight times ``grad`` to a cell. Not finite if an input is not.
    """
    most = grad.abs().amax().double() * weights.abs().amax().double()
    count = weights.shape[1] * max(levels[2::3])  # of the points of a head in a level, at most
    return most * count / 2**DETERMINISTIC_BITS


def backward(
    grad: Tensor, value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, locations and weights, each in the dtype of its own, given that of the
    result.

    Those of values are added up by atomic operations, in an order that changes the last bits.
    Under ``torch.use_deterministic_algorithms`` they are counted in integers of 64 bits, where the
    order doesn't matter: no less exact, but slower, and with twice the memory for the sums.
    """
    if not grad.numel():
        return torch.zeros_like(value), torch.zeros_like(locations), torch.zeros_like(weights)
    grad, value, locations, weights = (x.contiguous() for x in (grad, value, locations, weights))
    unit = _unit(grad, weights, levels) if torch.are_deterministic_algorithms_enabled() else None
    sums_dtype = _dtype(value, locations) if unit is None else torch.int64
    by_value = torch.zeros_like(value, dtype=sums_dtype)
    by_location, by_weight = torch.empty_like(locations), torch.empty_like(weights)
    tensors = [grad, value, locations, weights, by_value, by_location, by_weight, unit]
    _launch(_backward_kernel, tensors, value, levels, locations, _added_at_once(by_value))
    if unit is not None:
        by_value = by_value * unit
    return by_value.to(value.dtype), by_location, by_weight
