"""Multi-scale deformable attention as one operator, with the implementation chosen at run time.

Source: "Deformable DETR", arXiv:2010.04159.

Letters: ``B`` batch, ``Q`` queries, ``S`` tokens of all levels, ``M`` heads, ``D`` channels of a
head, ``L`` levels, ``N`` points of a head in all levels, ``P`` points of a head in each level where
all levels have as many.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from detrex.layers.ms_deform_attn import (
    pytorch_kernels,
    threads,  # noqa: F401  (imported before a fork, it can tell the child from the parent)
)

KERNELS = {"cpu": ("numba",), "cuda": ("triton",)}
"""By device type the implementations with kernels of their own, the fastest first. Plain PyTorch
does everywhere else, and for export. Each is a module ``<name>_kernels`` of this package."""

NAMES = ("pytorch", *(name for names in KERNELS.values() for name in names))

VARIABLE = "DETREX_MS_DEFORM_ATTN"
"""Environment variable that names the implementation to use where it can run."""


def _checked(name: str | None, source: str = "") -> str | None:
    if name not in (None, *NAMES):
        raise ValueError(
            f"{source}{name!r} is no implementation of deformable attention; there are: "
            f"{', '.join(NAMES)}."
        )
    return name


_chosen = _checked(os.environ.get(VARIABLE) or None, f"environment variable {VARIABLE}: ")


class Implementation(NamedTuple):
    """What runs on a device, and why nothing faster does."""

    name: str
    passed_over: dict[str, str]
    """By name of each implementation that would come first, why it isn't used."""


@functools.cache
def _kernels(name: str) -> ModuleType | str:
    """The kernels of an implementation, or why they can't be had."""
    try:
        return importlib.import_module(f"{__package__}.{name}_kernels")
    except Exception as error:  # whatever is wrong with an optional package, PyTorch goes on
        return f"{type(error).__name__}: {error}"


def implementation(device_type: str) -> Implementation:
    """What computes deformable attention on a type of device, such as ``"cpu"``."""
    passed_over: dict[str, str] = {}
    for name in KERNELS.get(device_type, ()):
        if _chosen not in (None, name):
            passed_over[name] = f"{_chosen} was asked for"
        elif isinstance(reason := _kernels(name), str):
            passed_over[name] = reason
        else:
            return Implementation(name, passed_over)
    return Implementation("pytorch", passed_over)


@torch.compiler.assume_constant_result
def _has_kernels(device_type: str) -> bool:
    return implementation(device_type).name != "pytorch"


def _module(device_type: str) -> ModuleType:
    """The kernels for a device, also where PyTorch was asked for since a graph was recorded."""
    for name in KERNELS.get(device_type, ()):
        if isinstance(module := _kernels(name), ModuleType):
            return module
    raise NotImplementedError(
        f"The operator detrex::ms_deform_attn has no kernels for {device_type} here; the function "
        "ms_deform_attn() does without."
    )


def _check(value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor) -> None:
    """Kernels would read and write beyond tensors that don't fit together.

    Raises:
        ValueError: says which don't.
    """
    sizes, points = list(zip(levels[::3], levels[1::3], strict=True)), list(levels[2::3])
    tokens = sum(height * width for height, width in sizes)
    if value.ndim != 4 or tokens != value.shape[1] or min(map(min, sizes), default=0) < 1:
        raise ValueError(
            f"The values {tuple(value.shape)} are not (B, S, M, D) with the S tokens of levels "
            f"whose heights and widths are {sizes}."
        )
    expected = (value.shape[0], *locations.shape[1:2], value.shape[2], sum(points))
    if locations.shape != (*expected, 2) or weights.shape != expected or min(points) < 0:
        raise ValueError(
            f"For values {tuple(value.shape)} and {points} points in the levels, locations have "
            f"the shape (B, Q, M, {sum(points)}, 2) and weights (B, Q, M, {sum(points)}), with the "
            f"points of all levels in a row, not {tuple(locations.shape)} and "
            f"{tuple(weights.shape)}."
        )


@contextmanager
def use_implementation(name: str | None) -> Iterator[None]:
    """Prefer an implementation inside the block: ``"pytorch"`` for export, None for the fastest.

    Where it can't run, PyTorch does. It counts for all threads; what was compiled before stays as
    it was. The environment variable ``DETREX_MS_DEFORM_ATTN`` does the same for a whole process.

    Raises:
        ValueError: there is none of this name.
    """
    global _chosen
    before, _chosen = _chosen, _checked(name)
    try:
        yield
    finally:
        _chosen = before


@torch.library.custom_op("detrex::ms_deform_attn", mutates_args=())
def _forward(value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    _check(value, levels, locations, weights)
    return _module(value.device.type).forward(value, levels, locations, weights)


@_forward.register_fake
def _(value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, locations.shape[1], heads * channels)


@torch.library.custom_op("detrex::ms_deform_attn_backward", mutates_args=())
def _backward(
    grad: Tensor, value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    _check(value, levels, locations, weights)
    if grad.shape != (*locations.shape[:2], value.shape[2] * value.shape[3]):
        raise ValueError(f"The gradient {tuple(grad.shape)} is not that of (B, Q, M * D).")
    return _module(value.device.type).backward(grad, value, levels, locations, weights)


@_backward.register_fake
def _(
    grad: Tensor, value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    empty = [x.new_empty(x.shape) for x in (value, locations, weights)]
    return empty[0], empty[1], empty[2]


def _save(ctx, inputs, output) -> None:
    value, ctx.levels, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _gradients(ctx, grad: Tensor):
    value, locations, weights = ctx.saved_tensors
    by_value, by_location, by_weight = _backward(grad, value, ctx.levels, locations, weights)
    return by_value, None, by_location, by_weight


_forward.register_autograd(_gradients, setup_context=_save)

is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # new in torch 2.7


def ms_deform_attn(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points: Sequence[int] | None = None,
) -> Tensor:
    """Weighted sum of bilinear samples, by the fastest implementation for the device.

    While a model is exported, plain PyTorch computes it on every device; sizes may be symbolic then
    and are not checked.

    Args:
        value: ``(B, S, M, D)``, the levels one after another.
        shapes: ``L`` pairs (height, width).
        locations: ``(B, Q, M, L, P, 2)`` as (x, y); 0 and 1 are the borders of the level, beyond
            them the map is zero. With ``points`` it is ``(B, Q, M, N, 2)``.
        weights: ``(B, Q, M, L, P)``; with ``points`` it is ``(B, Q, M, N)``.
        points: of how many points in each level the ``N`` consist, in the order of the levels.

    Returns:
        ``(B, Q, M * D)`` in the dtype of ``value``. Points, weights and sums have single precision
        at least, also under autocast: points in half precision would miss by whole cells. What a
        point that is NaN reads is not defined.

    Raises:
        ValueError: shapes don't fit together.
    """
    if points is None:
        if locations.ndim != 6 or weights.ndim != 5:
            raise ValueError(
                "Without points, locations have the shape (B, Q, M, L, P, 2) and weights "
                f"(B, Q, M, L, P), not {tuple(locations.shape)} and {tuple(weights.shape)}."
            )
        points = [locations.shape[4]] * len(shapes)
        locations, weights = locations.flatten(3, 4), weights.flatten(3, 4)
    if len(points) != len(shapes):
        raise ValueError(f"There are {len(points)} numbers of points for {len(shapes)} levels.")
    levels = [x for shape, count in zip(shapes, points, strict=True) for x in (*shape, count)]
    exporting = is_exporting()
    if not exporting:
        _check(value, levels, locations, weights)
    wide = functools.reduce(torch.promote_types, (locations.dtype, weights.dtype), torch.float32)
    plain = exporting or not _has_kernels(value.device.type)
    compute = pytorch_kernels.forward if plain else _forward
    return compute(value, levels, locations.to(wide), weights.to(wide))
