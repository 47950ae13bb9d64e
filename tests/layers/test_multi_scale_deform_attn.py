"""Deformable attention: the sampling core and the module around it."""

from __future__ import annotations

import math

import pytest
import reference_ops
import torch
from reference_recipe import fill_with_recipe
from torch import Tensor
from torch.testing import assert_close

from detrex import _C
from detrex.layers import MultiScaleDeformableAttention, multi_scale_deformable_attn_pytorch
from detrex.layers.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

CORE = reference_ops.load("ms_deform_attn_core")
MODULE = reference_ops.load("ms_deform_attn_module")
INPUTS = ("value", "sampling_locations", "attention_weights")


def run_core(inputs: list[Tensor]) -> Tensor:
    value, locations, weights = inputs
    return multi_scale_deformable_attn_pytorch(value, CORE["spatial_shapes"], locations, weights)


def test_core_and_its_gradients_agree_with_the_reference():
    inputs = [CORE[name].clone().requires_grad_() for name in INPUTS]
    out = run_core(inputs)
    assert_close(out, CORE["output"])
    grads = torch.autograd.grad(out, inputs, CORE["cotangent"])
    for name, grad in zip(INPUTS, grads, strict=True):
        assert_close(grad, CORE[f"grad_{name}"])


def test_the_function_of_the_public_detrex_is_the_core():
    value, locations, weights = (CORE[name].clone().requires_grad_() for name in INPUTS)
    shapes = CORE["spatial_shapes"]
    starts = shapes.prod(1).cumsum(0).roll(1)
    out = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    assert_close(out, CORE["output"])
    grad = torch.autograd.grad(out, value, CORE["cotangent"])[0]
    assert_close(grad, CORE["grad_value"])


def test_the_compiled_module_of_the_public_detrex_is_the_core():
    shapes = CORE["spatial_shapes"]
    value, *others = (CORE[name] for name in INPUTS)
    inputs = value, shapes, shapes.prod(1).cumsum(0).roll(1), *others
    assert_close(_C.ms_deform_attn_forward(*inputs, 64), CORE["output"])
    with torch.no_grad():  # as in the backward of an autograd function
        grads = _C.ms_deform_attn_backward(*inputs, CORE["cotangent"], 64)
    for name, grad in zip(INPUTS, grads, strict=True):
        assert_close(grad, CORE[f"grad_{name}"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_core_keeps_the_dtype(dtype):
    out = run_core([CORE[name].to(dtype) for name in INPUTS])
    assert out.dtype == dtype
    # A location rounded by eps moves by up to eps * w cells; values differ by up to about 6.
    atol = 1e-5 if dtype == torch.float64 else 6 * 10 * torch.finfo(dtype).eps
    assert_close(out.float(), CORE["output"], rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_core_takes_locations_in_a_wider_dtype(dtype):
    """Then only values and weights are rounded: relatively by eps each, of sums up to 1.93."""
    value, locations, weights = (CORE[name] for name in INPUTS)
    out = run_core([value.to(dtype), locations, weights.to(dtype)])
    assert out.dtype == dtype
    atol = 1e-5 if dtype == torch.float64 else 2 * 1.5 * torch.finfo(dtype).eps
    assert_close(out.float(), CORE["output"], rtol=0, atol=atol)


def filled(**options) -> MultiScaleDeformableAttention:
    attention = MultiScaleDeformableAttention(32, 4, 3, 2, **{"batch_first": True, **options})
    fill_with_recipe(attention)
    return attention.eval()


def arguments(points: str = "reference_points_2") -> dict[str, Tensor]:
    known = {name: MODULE[name] for name in ("query", "value", "query_pos", "key_padding_mask")}
    return known | {
        "reference_points": MODULE[points],
        "spatial_shapes": MODULE["spatial_shapes"],
        "level_start_index": MODULE["level_start_index"],
    }


def test_module_starts_like_the_reference():
    default = MultiScaleDeformableAttention()
    assert_close(default.sampling_offsets.bias, MODULE["init_default_sampling_offsets_bias"])
    small = MultiScaleDeformableAttention(32, 4, 3, 2)
    assert_close(small.sampling_offsets.bias, MODULE["init_small_sampling_offsets_bias"])
    assert sorted(small.state_dict()) == list(MODULE["module_keys"])
    for name, parameter in default.named_parameters():
        mean, std = MODULE[f"init_default_stat.{name}"].tolist()
        # Six standard errors of a mean over all numbers, and of a standard deviation.
        error = 6 * std / math.sqrt(parameter.numel())
        assert abs(parameter.mean().item() - mean) <= 2 * error + 1e-9, name
        assert abs(parameter.std().item() - std) <= 2 * error + 1e-6, name


@pytest.mark.parametrize("points", ["2", "4"])
def test_module_agrees_with_the_reference(points):
    out = filled()(**arguments(f"reference_points_{points}"))
    assert_close(out, MODULE[f"output_ref{points}"])


def test_module_adds_to_the_identity_given():
    # Measured without positions and padding, on top of the positions.
    known = arguments() | {"query_pos": None, "key_padding_mask": None}
    out = filled()(**known, identity=MODULE["query_pos"])
    assert_close(out, MODULE["output_ref2_identity"])


def test_self_attention_agrees_with_the_reference():
    known = {"reference_points": MODULE["self_reference"]}
    out = filled()(MODULE["self_query"], spatial_shapes=MODULE["spatial_shapes"], **known)
    assert_close(out, MODULE["self_output"])


def test_sequence_first_agrees_with_the_reference():
    known = arguments()
    known |= {name: known[name].transpose(0, 1) for name in ("query", "value", "query_pos")}
    assert_close(filled(batch_first=False)(**known), MODULE["output_seq_first"])


def test_shapes_may_be_a_list():
    listed = arguments() | {"spatial_shapes": [tuple(s) for s in MODULE["spatial_shapes"].tolist()]}
    assert torch.equal(filled()(**listed), filled()(**arguments()))


def test_padding_has_no_influence():
    known = arguments()
    changed = known | {"value": known["value"].masked_fill(known["key_padding_mask"][..., None], 9)}
    assert torch.equal(filled()(**changed), filled()(**known))


def test_no_queries_and_no_gradient_trouble():
    known = arguments()
    known |= {name: known[name][:, :0] for name in ("query", "query_pos", "reference_points")}
    attention = filled()
    out = attention(**known)
    assert out.shape == (2, 0, 32)
    out.sum().backward()
    assert all((p.grad == 0).all() for p in attention.parameters())


def test_autocast_stays_close():
    with torch.autocast("cpu", torch.bfloat16):
        out = filled(dropout=0.0)(**arguments())
    assert_close(out.float(), MODULE["output_ref2"], rtol=0, atol=0.1)


def test_a_bfloat16_model_reads_where_float32_points_say():
    known = {
        n: v.bfloat16() if n in ("query", "value", "query_pos") else v
        for n, v in arguments().items()
    }
    out = filled(dropout=0.0).bfloat16()(**known)
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), MODULE["output_ref2"], rtol=0, atol=0.1)


def test_dropout_acts_in_training_only():
    known = arguments()
    attention = filled(dropout=1.0)
    assert_close(attention(**known), MODULE["output_ref2"])
    assert torch.equal(attention.train()(**known), known["query"])


def test_wrong_input_is_named():
    known = arguments()
    with pytest.raises(ValueError, match="46 tokens don't fill levels"):
        filled()(**known | {"spatial_shapes": [(5, 6), (3, 4), (2, 3)]})
    with pytest.raises(ValueError, match="2 or 4 numbers, not 3"):
        filled()(**known | {"reference_points": known["reference_points"].new_zeros(2, 7, 3, 3)})
    with pytest.raises(ValueError, match="needs reference_points"):
        filled()(known["query"])
    with pytest.raises(ValueError, match="not divisible"):
        MultiScaleDeformableAttention(32, 5)
    for wrong in (0, [3, 6], [3, 0, 3]):
        with pytest.raises(
            ValueError, match="one positive number, or one for each of the 3 levels"
        ):
            MultiScaleDeformableAttention(32, 4, 3, wrong)


def test_other_points_per_level_start_like_even_ones():
    uneven = MultiScaleDeformableAttention(32, 4, 3, [3, 6, 3])
    assert uneven.sampling_offsets.out_features == 2 * uneven.attention_weights.out_features == 96
    by_level = uneven.sampling_offsets.bias.view(4, 12, 2).split([3, 6, 3], 1)
    for offsets in by_level:
        even = MultiScaleDeformableAttention(32, 4, 1, offsets.shape[1])
        assert torch.equal(offsets.flatten(), even.sampling_offsets.bias)


@pytest.mark.parametrize("points", ["reference_points_2", "reference_points_4"])
def test_a_number_per_level_is_the_same_as_one_for_all(points):
    torch.manual_seed(0)
    one = MultiScaleDeformableAttention(32, 4, 3, 2, batch_first=True)
    torch.manual_seed(0)
    listed = MultiScaleDeformableAttention(32, 4, 3, [2, 2, 2], batch_first=True)
    assert all(map(torch.equal, one.parameters(), listed.parameters()))
    known = arguments(points)
    assert torch.equal(listed.eval()(**known), one.eval()(**known))


@pytest.mark.parametrize("points", ["reference_points_2", "reference_points_4"])
def test_other_points_per_level_read_where_each_level_says(points):
    """Compared level by level: attention to one level with its own points alone."""
    counts = [3, 1, 2]
    attention = MultiScaleDeformableAttention(32, 4, 3, counts, dropout=0.0, batch_first=True)
    fill_with_recipe(attention)
    known = arguments(points)
    shapes = known["spatial_shapes"].tolist()
    values = known["value"].split([h * w for h, w in shapes], 1)
    masks = known["key_padding_mask"].split([h * w for h, w in shapes], 1)
    query = known["query"] + known["query_pos"]
    logits = attention.attention_weights(query).unflatten(-1, (4, -1))
    offsets = attention.sampling_offsets(query).view(2, -1, 4, sum(counts), 2)
    weights = logits.softmax(-1).split(counts, -1)
    total = 0
    for level, (count, part) in enumerate(zip(counts, offsets.split(counts, -2), strict=True)):
        h, w = shapes[level]
        value = attention.value_proj(values[level]).masked_fill(masks[level][..., None], 0)
        reference = known["reference_points"][:, :, level, None, None]
        box = reference[..., 2:] * 0.5 / count if points.endswith("4") else 1 / torch.tensor([w, h])
        total = total + multi_scale_deformable_attn_pytorch(
            value.unflatten(-1, (4, -1)),
            [(h, w)],
            (reference[..., :2] + part * box)[:, :, :, None],
            weights[level][:, :, :, None],
        )
    assert_close(attention(**known), attention.output_proj(total) + known["query"])
