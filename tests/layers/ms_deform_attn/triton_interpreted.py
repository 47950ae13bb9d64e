"""Tests of the Triton kernels that run in Triton's interpreter, on the CPU.

It must be switched on before triton is imported, so test_triton_kernels.py runs this file in a
process of its own. The interpreter is slow: sizes are as small as they can be.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from detrex.layers.ms_deform_attn import pytorch_kernels, triton_kernels

Inputs = tuple[Tensor, list[int], Tensor, Tensor]


def random_inputs(b=1, q=5, m=1, d=3, shapes=((3, 2), (1, 4)), p=1, dtype=torch.float32) -> Inputs:
    """Values, levels, locations (some beyond the border) and weights, all random; ``p`` points in
    each level, or in each its own number of them."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    tokens = sum(h * w for h, w in shapes)
    value = torch.randn(b, tokens, m, d, generator=generator, dtype=wide).to(dtype)
    points = (p,) * len(shapes) if isinstance(p, int) else p
    locations = torch.rand(b, q, m, sum(points), 2, generator=generator, dtype=wide)
    weights = torch.rand(b, q, m, sum(points), generator=generator, dtype=wide)
    levels = [x for shape, count in zip(shapes, points, strict=True) for x in (*shape, count)]
    return value, levels, locations * 1.6 - 0.3, weights


def cotangent(inputs: Inputs) -> Tensor:
    value, _, locations, _ = inputs
    generator = torch.Generator().manual_seed(1)
    shape = (*locations.shape[:2], value.shape[2] * value.shape[3])
    return torch.randn(shape, generator=generator, dtype=locations.dtype).to(value.dtype)


def expected(inputs: Inputs) -> list[Tensor]:
    """Result and gradients by plain PyTorch, in single precision at least."""
    value, levels, locations, weights = inputs
    leaves = [x.detach().to(locations.dtype).requires_grad_() for x in (value, locations, weights)]
    out = pytorch_kernels.forward(leaves[0], levels, leaves[1], leaves[2])
    grads = torch.autograd.grad(out, leaves, cotangent(inputs).to(out.dtype))
    return [out.detach(), *grads]


def computed(inputs: Inputs) -> list[Tensor]:
    out = triton_kernels.forward(*inputs)
    return [out, *triton_kernels.backward(cotangent(inputs), *inputs)]


def check(inputs: Inputs, tolerance: float) -> None:
    value, _, locations, weights = inputs
    dtypes = (value.dtype, value.dtype, locations.dtype, weights.dtype)
    for found, wanted, dtype in zip(computed(inputs), expected(inputs), dtypes, strict=True):
        assert found.dtype == dtype
        assert_close(found.to(wanted.dtype), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "sizes",
    [
        {"b": 2, "m": 2},
        {"q": 9, "d": 8, "shapes": ((5, 4),), "p": 3},  # more queries than rows
        {"d": 1, "m": 3, "shapes": ((1, 1), (2, 2), (4, 3))},
        {"d": 40, "q": 2, "p": 2},  # more channels than threads
        {"b": 2, "m": 2, "p": (1, 3)},
        {"shapes": ((5, 4), (2, 2), (1, 3)), "p": (3, 1, 2)},
    ],
)
def test_agrees_with_pytorch(sizes):
    check(random_inputs(**sizes), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_results(dtype):
    check(random_inputs(dtype=dtype), torch.finfo(dtype).eps)


def test_double_precision():
    check(random_inputs(dtype=torch.float64), 1e-12)
    value, levels, locations, weights = random_inputs()
    check((value, levels, locations.double(), weights.double()), 1e-6)


def test_points_outside_or_nan_count_for_nothing():
    value, levels, locations, weights = random_inputs(q=8)
    moved, kept = locations.clone(), weights.clone()
    for query, nowhere in enumerate((float("nan"), float("inf"), -9.0, 1e30)):
        moved[:, query, :, 0] = nowhere
        moved[:, query, :, 1, query % 2] = nowhere  # a single coordinate
    kept[:, :4] = 0
    out, by_value, by_location, by_weight = computed((value, levels, moved, weights))
    wanted = expected((value, levels, locations, kept))
    wanted[3][:, :4] = 0
    for found, reference in zip((out, by_value, by_location, by_weight), wanted, strict=True):
        assert_close(found, reference)


@pytest.mark.parametrize("sizes", [{"b": 0}, {"q": 0}])
def test_empty(sizes):
    inputs = random_inputs(**sizes)
    check(inputs, 0)
    assert triton_kernels.forward(*inputs).shape == (*inputs[2].shape[:2], 3)


def test_inputs_need_not_be_contiguous():
    value, levels, locations, weights = random_inputs(b=2)
    mixed = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (value, locations, weights)]
    grad = cotangent((value, levels, locations, weights))
    inputs = (mixed[0], levels, mixed[1], mixed[2])
    assert not any(x.is_contiguous() for x in mixed)
    out, *grads = expected(inputs)
    assert_close(triton_kernels.forward(*inputs), out)
    strided = grad.transpose(0, 1).contiguous().transpose(0, 1)
    for found, wanted in zip(triton_kernels.backward(strided, *inputs), grads, strict=True):
        assert_close(found, wanted)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("deterministic")
def test_deterministic_gradients_do_not_depend_on_the_order(dtype):
    inputs = random_inputs(q=16, shapes=((3, 2), (1, 1)), p=(2, 1), dtype=dtype)
    value, levels, locations, weights = inputs
    check(inputs, 1e-12 if dtype == torch.float64 else 1e-5)
    grad = cotangent(inputs)
    by_value = triton_kernels.backward(grad, *inputs)[0]
    flipped = [x.flip(1) for x in (grad, locations, weights)]
    again = triton_kernels.backward(flipped[0], value, levels, flipped[1], flipped[2])[0]
    assert torch.equal(again, by_value)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
@pytest.mark.usefixtures("deterministic")
def test_deterministic_gradients_of_any_size():
    inputs = random_inputs(shapes=((3, 2),))
    grad = cotangent(inputs)
    wanted = expected(inputs)[1]
    for scale in (0.0, 1e-30, 1e30):
        by_value = triton_kernels.backward(grad * scale, *inputs)[0]
        assert_close(by_value, wanted * scale, rtol=1e-4, atol=1e-6 * scale)
    for broken in (float("nan"), float("inf")):
        grad[0, 0, 0] = broken
        assert not triton_kernels.backward(grad, *inputs)[0].isfinite().any()


def test_too_large_an_image_is_refused():
    value, locations = (torch.empty(1, 2**23, 8, 32, device="meta"), torch.empty(1, 1, 8, 1, 2))
    with pytest.raises(ValueError, match=r"values \(1, 8388608, 8, 32\).*DETREX_MS_DEFORM_ATTN"):
        triton_kernels.forward(value, [2**12, 2**11, 1], locations, locations[..., 0])
