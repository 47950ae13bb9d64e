"""The operator: every implementation of the CPU against the definition, and how one is chosen."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from deform_attn_definition import random_inputs, slow_core
from torch.testing import assert_close

from detrex.layers.ms_deform_attn import (
    implementation,
    ms_deform_attn,
    numba_kernels,
    op,
    use_implementation,
)

IMPLEMENTATIONS = ["numba", "pytorch"]
SIZES = {
    "two levels": {},
    "one level": {"shapes": ((1, 5),), "p": 1},
    "one channel": {"shapes": ((4, 3), (2, 2), (1, 1)), "m": 1, "d": 1, "b": 1},
    "odd numbers": {"shapes": ((2, 7), (3, 1)), "q": 1, "m": 3, "d": 5, "p": 3},
    "a head of 32": {"d": 32, "b": 1, "m": 1},
}
UNEVEN = {
    "other points per level": {"shapes": ((3, 2), (1, 1), (2, 2)), "p": (3, 1, 2)},
    "no points in a level": {"shapes": ((3, 2), (2, 1)), "p": (0, 2), "m": 1, "d": 4},
}
EVERY_SIZE = SIZES | UNEVEN


def flat_levels(shapes, points) -> list[int]:
    """The levels as the operator takes them: height, width and number of points of each."""
    return [x for shape, count in zip(shapes, points, strict=True) for x in (*shape, count)]


@pytest.fixture(params=IMPLEMENTATIONS)
def chosen(request):
    with use_implementation(request.param):
        assert implementation("cpu").name == request.param
        yield request.param


@pytest.mark.parametrize("sizes", EVERY_SIZE.values(), ids=EVERY_SIZE)
def test_it_is_its_definition(chosen, sizes):
    inputs = random_inputs(**sizes)
    assert_close(ms_deform_attn(*inputs), slow_core(*inputs))


@pytest.mark.parametrize("sizes", EVERY_SIZE.values(), ids=EVERY_SIZE)
def test_gradients_are_the_numeric_ones(chosen, sizes):
    value, shapes, locations, weights, *points = random_inputs(**{**sizes, "q": 1})
    # Where a location is half-way between cells the interpolation has a kink.
    counts = points[0] if points else [locations.shape[4]] * len(shapes)
    size = torch.tensor(
        [shape[::-1] for shape, n in zip(shapes, counts, strict=True) for _ in range(n)]
    )
    cell = locations.reshape(*locations.shape[:3], -1, 2) * size - 0.5
    assert (cell - cell.round()).abs().min() > 1e-4
    assert torch.autograd.gradcheck(
        lambda v, s, a: ms_deform_attn(v, shapes, s, a, *points),
        [x.requires_grad_() for x in (value, locations, weights)],
    )


def gradients(inputs, dtype=None):
    """The result and the three gradients for a fixed cotangent."""
    value, shapes, locations, weights, *points = inputs
    leaves = [x.detach().to(dtype).requires_grad_() for x in (value, locations, weights)]
    out = ms_deform_attn(leaves[0], shapes, *leaves[1:], *points)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), *torch.autograd.grad(out, leaves, cotangent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [2, (3, 1)])
def test_every_precision(chosen, p, dtype):
    """Compared with double precision on the same, rounded, numbers."""
    value, shapes, locations, weights, *points = random_inputs(q=5, d=8, p=p)
    inputs = [x.to(dtype) for x in (value, locations, weights)]
    rounded = inputs[0], shapes, *inputs[1:], *points
    for actual, expected in zip(
        gradients(rounded, dtype), gradients(rounded, torch.float64), strict=True
    ):
        assert actual.dtype == dtype
        eps = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
        scale = expected.abs().max().item()
        assert_close(actual.double(), expected, rtol=0, atol=eps * scale)


def test_even_points_in_a_row_are_the_same(chosen):
    """To the last bit, gradients included."""
    value, shapes, locations, weights = random_inputs(q=5, d=8, p=3)
    in_a_row = value, shapes, locations.flatten(3, 4), weights.flatten(3, 4), [3, 3]
    by_level = gradients((value, shapes, locations, weights), torch.float32)
    for one, other in zip(gradients(in_a_row, torch.float32), by_level, strict=True):
        assert torch.equal(one.flatten(), other.flatten())


def test_bfloat16_is_read_as_it_is():
    """By its bits; the same numbers in single precision give the same, rounded."""
    value, shapes, locations, weights = random_inputs(q=5, d=32, dtype=torch.float32)
    value = value.bfloat16().requires_grad_()
    wide = value.detach().float().requires_grad_()
    assert numba_kernels._rows(value, torch.float32).dtype == np.int16
    with use_implementation("numba"):
        out = ms_deform_attn(value, shapes, locations, weights)
        expected = ms_deform_attn(wide, shapes, locations, weights)
    cotangent = torch.linspace(-1, 1, out.numel()).view_as(out).bfloat16()
    (grad,) = torch.autograd.grad(out, value, cotangent)
    (expected_grad,) = torch.autograd.grad(expected, wide, cotangent.float())
    assert torch.equal(out, expected.bfloat16())
    assert torch.equal(grad, expected_grad.bfloat16())


def test_inputs_of_other_layouts(chosen):
    value, shapes, locations, weights = random_inputs(q=4, d=6)
    expected = ms_deform_attn(value, shapes, locations, weights)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in (value, locations, weights)]
    assert not any(x.is_contiguous() for x in turned)
    assert_close(ms_deform_attn(turned[0], shapes, *turned[1:]), expected)


@pytest.mark.parametrize("empty", [{"b": 0}, {"q": 0}])
def test_nothing_in_nothing_out(chosen, empty):
    inputs = random_inputs(**empty)
    out, *grads = gradients(inputs, torch.float32)
    assert out.shape == (inputs[2].shape[0], inputs[2].shape[1], 6)
    assert all((grad == 0).all() for grad in grads)


def test_numbers_that_are_not_finite_stay_inside():
    """A point without a place must not be looked up."""
    value, shapes, locations, weights = random_inputs()
    for bad in (float("nan"), float("inf"), -float("inf"), 1e30):
        with use_implementation("numba"):
            out, *grads = gradients((value, shapes, torch.full_like(locations, bad), weights))
        assert all((x == 0).all() for x in (out, *grads))


WRONG = {
    "more tokens than there are": lambda v, s, x, w: (v, ((30, 20), (10, 10)), x, w),
    "a level too few": lambda v, s, x, w: (v, ((7, 1),), x, w),
    "no height": lambda v, s, x, w: (v, ((7, 1), (0, 5)), x, w),
    "other heads": lambda v, s, x, w: (v, s, x[:, :, :1], w[:, :, :1]),
    "another batch": lambda v, s, x, w: (v, s, x[:1], w[:1]),
    "weights of other points": lambda v, s, x, w: (v, s, x, w[..., :1]),
    "three coordinates": lambda v, s, x, w: (v, s, torch.cat((x, x[..., :1]), -1), w),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(chosen, wrong):
    value, shapes, locations, weights = wrong(*random_inputs())
    with pytest.raises(ValueError, match=r"(are not \(B, S, M, D\)|locations have the shape)"):
        ms_deform_attn(value, shapes, locations, weights)
    levels, in_a_row = flat_levels(shapes, [2] * len(shapes)), locations.flatten(3, 4)
    with pytest.raises(ValueError, match=r"(are not \(B, S, M, D\)|locations have the shape)"):
        torch.ops.detrex.ms_deform_attn(value, levels, in_a_row, weights.flatten(3, 4))


def test_points_that_do_not_fit_are_refused(chosen):
    value, shapes, locations, weights, _ = random_inputs(p=(3, 1))
    for points in ([1, 2], [5, -1], [2, 3]):
        with pytest.raises(ValueError, match=r"points in the levels, locations have the shape"):
            ms_deform_attn(value, shapes, locations, weights, points)
    with pytest.raises(ValueError, match=r"3 numbers of points for 2 levels"):
        ms_deform_attn(value, shapes, locations, weights, [3, 1, 0])
    with pytest.raises(ValueError, match=r"Without points, locations have the shape"):
        ms_deform_attn(value, shapes, locations, weights)


def test_a_gradient_that_does_not_fit_is_refused():
    value, shapes, locations, weights, points = random_inputs(p=(2, 1))
    levels = flat_levels(shapes, points)
    with pytest.raises(ValueError, match="gradient"):
        op._backward(torch.ones(2, 3, 5), value, levels, locations, weights)


def test_points_have_single_precision_on_large_maps(chosen):
    """In half precision a point would miss by a third of a cell here."""
    value, shapes, locations, weights = random_inputs(b=1, q=50, shapes=((100, 134), (50, 67)))
    inputs = [x.bfloat16() for x in (value, locations, weights)]
    out = ms_deform_attn(inputs[0], shapes, *inputs[1:])
    expected = ms_deform_attn(inputs[0].double(), shapes, *(x.double() for x in inputs[1:]))
    assert_close(out.double(), expected, rtol=0, atol=0.02)


def test_a_graph_outlives_the_choice():
    """What was recorded with kernels keeps them."""
    value, shapes, locations, weights = random_inputs()
    leaves = [x.requires_grad_() for x in (value, locations, weights)]
    out = ms_deform_attn(leaves[0], shapes, *leaves[1:])
    expected = torch.autograd.grad(out.sum(), leaves, retain_graph=True)
    with use_implementation("pytorch"):
        actual = torch.autograd.grad(out.sum(), leaves)
    assert all(map(torch.equal, actual, expected))


def test_threads_change_nothing():
    inputs = random_inputs(b=3, q=150, m=2, d=16, shapes=((12, 9), (6, 5)), p=(1, 3))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(gradients(inputs, torch.float32))
    finally:
        torch.set_num_threads(before)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert torch.equal(one, other)


def _in_a_child(queue) -> None:
    torch.set_num_threads(2)
    queue.put(ms_deform_attn(*random_inputs(q=200)).sum().item())


def test_it_runs_in_a_forked_process():
    """Whose parent has threads that the child does not inherit."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = ms_deform_attn(*random_inputs(q=200)).sum().item()
    finally:
        torch.set_num_threads(before)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(queue,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == expected


def test_the_operator_keeps_torchs_rules():
    value, shapes, locations, weights, points = random_inputs(dtype=torch.float32, p=(3, 1))
    levels = flat_levels(shapes, points)
    leaves = [x.clone().requires_grad_() for x in (value, locations, weights)]
    torch.library.opcheck(op._forward, (leaves[0], levels, *leaves[1:]))
    grad = torch.ones(2, 3, 6)
    torch.library.opcheck(op._backward, (grad, value, levels, locations, weights))


@pytest.mark.parametrize("p", [2, (3, 1)])
def test_it_compiles_without_a_break(chosen, p):
    value, shapes, locations, weights, *points = random_inputs(q=4, dtype=torch.float32, p=p)

    def doubled(v, s, a):
        return 2 * ms_deform_attn(v, shapes, s, a, *points)

    torch._dynamo.reset()
    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    assert_close(compiled(value, locations, weights), doubled(value, locations, weights))


def test_autocast_leaves_points_alone(chosen):
    value, shapes, locations, weights = random_inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = ms_deform_attn(value, shapes, locations, weights)
    assert torch.equal(out, ms_deform_attn(value, shapes, locations, weights))


def test_a_broken_package_is_passed_over(monkeypatch):
    monkeypatch.setitem(sys.modules, f"{op.__package__}.numba_kernels", None)
    op._kernels.cache_clear()
    try:
        found = implementation("cpu")
        assert found.name == "pytorch"
        assert "ModuleNotFoundError" in found.passed_over["numba"]
        inputs = random_inputs()
        assert_close(ms_deform_attn(*inputs), slow_core(*inputs))
    finally:
        op._kernels.cache_clear()


def test_another_device_gets_plain_pytorch():
    assert implementation("mps") == ("pytorch", {})


def test_the_block_ends_with_what_was_before():
    with use_implementation("pytorch"):
        with use_implementation(None):
            assert implementation("cpu").name == "numba"
        assert implementation("cpu") == ("pytorch", {"numba": "pytorch was asked for"})
    with pytest.raises(
        ValueError, match=r"'numbda' is no implementation .* there are: pytorch, numba"
    ):
        use_implementation("numbda").__enter__()


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_environment_chooses():
    ask = (
        "from detrex.layers.ms_deform_attn import implementation; print(implementation('cpu').name)"
    )
    assert run(ask, DETREX_MS_DEFORM_ATTN="pytorch").stdout == "pytorch\n"
    assert run(ask, DETREX_MS_DEFORM_ATTN="").stdout == "numba\n"
    wrong = run(ask, DETREX_MS_DEFORM_ATTN="fast")
    assert "DETREX_MS_DEFORM_ATTN: 'fast' is no implementation" in wrong.stderr


def test_importing_detrex_compiles_and_loads_nothing():
    code = "import sys, detrex.layers; print('numba' in sys.modules)"
    assert run(code).stdout == "False\n"
