"""Deformable convolution v3: its definition, the reference, and what special weights make of it."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import reference_ops
import torch
import torch.nn.functional as F
from reference_recipe import fill_with_recipe
from torch import Tensor, nn
from torch.export import Dim, export
from torch.testing import assert_close

from detrex.layers.dcn_v3 import (
    DCNv3,
    DCNv3_pytorch,
    DCNv3Function,
    build_act_layer,
    build_norm_layer,
    dcnv3_core_pytorch,
)

WAYS = pytest.mark.parametrize("core", [DCNv3Function.apply, dcnv3_core_pytorch])
SQUARE = (3, 3, 1, 1, 1, 1, 1, 1, 2, 4, 1.5)
CONVOLUTIONS = {
    "s1": SQUARE,
    "s2": (3, 3, 2, 2, 1, 1, 1, 1, 2, 4, 1.5),
    "dil2": (3, 3, 1, 1, 2, 2, 2, 2, 2, 4, 1.5),
}


@WAYS
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_reference(core, name):
    arrays = reference_ops.load("dcnv3")
    x, offset = (arrays[f"{name}_{key}"].requires_grad_() for key in ("input", "offset"))
    y = core(x, offset, arrays[f"{name}_mask"], *CONVOLUTIONS[name])
    assert_close(y, arrays[f"{name}_output"], rtol=1e-5, atol=5e-6)
    y.backward(arrays[f"{name}_cotangent"])
    assert_close(x.grad, arrays[f"{name}_grad_input"], rtol=1e-5, atol=5e-6)
    assert_close(offset.grad, arrays[f"{name}_grad_offset"], rtol=1e-5, atol=1e-5)


def test_module_of_the_reference():
    arrays = reference_ops.load("dcnv3")
    module = DCNv3(8, group=2, offset_scale=1.5)
    fill_with_recipe(module)
    assert sorted(module.state_dict()) == arrays["module_keys"].tolist()
    assert_close(module(arrays["module_in"]), arrays["module_out"], rtol=1e-5, atol=1e-6)
    assert DCNv3_pytorch is DCNv3


def random_inputs(size: tuple[int, int], arguments: tuple[Any, ...]) -> list[Tensor]:
    """Of two images, in double precision."""
    generator = torch.Generator().manual_seed(0)
    kernel, stride, pad, dilation = zip(arguments[:8:2], arguments[1:8:2], strict=True)
    out = [
        (size[i] + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    ]
    points, channels = arguments[8] * kernel[0] * kernel[1], arguments[8] * arguments[9]
    shapes = (2, *size, channels), (2, *out, 2 * points), (2, *out, points)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def definition(x: Tensor, offset: Tensor, mask: Tensor, *arguments: Any) -> Tensor:
    """Position by position, point by point; a sample is a sum over all pixels."""
    kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = arguments[:8]
    group, group_channels, scale = arguments[8:]
    rows, columns = (torch.arange(n, dtype=x.dtype) for n in x.shape[1:3])
    out = x.new_zeros(*offset.shape[:3], group * group_channels)
    moved = offset.unflatten(-1, (group, kernel_w, kernel_h, 2))
    weights = mask.unflatten(-1, (group, kernel_w, kernel_h))
    middle_h, middle_w = dilation_h * (kernel_h - 1) // 2, dilation_w * (kernel_w - 1) // 2
    everything = [range(n) for n in (*offset.shape[:3], group, kernel_w, kernel_h)]
    for image, i, j, g, kx, ky in product(*everything):
        dx, dy = moved[image, i, j, g, kx, ky]
        center_y, center_x = i * stride_h - pad_h + middle_h, j * stride_w - pad_w + middle_w
        column = center_x + (kx * dilation_w - middle_w + dx) * scale
        row = center_y + (ky * dilation_h - middle_h + dy) * scale
        shares = torch.outer(*((1 - (a - b).abs()).clamp(min=0) for a, b in
                               ((row, rows), (column, columns))))  # fmt: skip
        own = slice(g * group_channels, (g + 1) * group_channels)
        sample = (shares[..., None] * x[image, :, :, own]).sum((0, 1))
        out[image, i, j, own] += weights[image, i, j, g, kx, ky] * sample
    return out


@WAYS
@pytest.mark.parametrize(
    "arguments",
    [
        (2, 3, 1, 2, 1, 0, 2, 1, 2, 4, 0.7),  # no two directions alike
        (1, 1, 1, 1, 0, 0, 1, 1, 1, 4, 2.0),
        (4, 2, 3, 1, 3, 2, 1, 1, 1, 4, 1.0),  # even sides
    ],
)
def test_definition(core, arguments):
    inputs = random_inputs((4, 5), arguments)
    assert_close(core(*inputs, *arguments), definition(*inputs, *arguments))


def test_gradients():
    arguments = (2, 1, 1, 1, 1, 0, 1, 1, 2, 4, 0.8)
    inputs = [x.requires_grad_() for x in random_inputs((3, 2), arguments)]
    assert torch.autograd.gradcheck(DCNv3Function.apply, (*inputs, *arguments))


def test_im2col_step_changes_nothing():
    inputs = [x.float() for x in random_inputs((4, 5), SQUARE)]
    expected = DCNv3Function.apply(*inputs, *SQUARE)
    assert torch.equal(DCNv3Function.apply(*inputs, *SQUARE, 256), expected)


@WAYS
def test_what_does_not_fit_is_refused(core):
    x, offset, mask = random_inputs((4, 5), SQUARE)
    with pytest.raises(ValueError, match=r"\(2, 4, 5, 7\) doesn't have 2 groups of 4 channels"):
        core(x[..., 1:], offset, mask, *SQUARE)
    with pytest.raises(ValueError, match=r"offset has the shape \(2, 4, 5, 36\).*not \(2, 5, 4"):
        core(x, offset.transpose(1, 2), mask, *SQUARE)
    with pytest.raises(ValueError, match=r"mask \(2, 4, 5, 18\), not .* and \(2, 4, 5, 9\)"):
        core(x, offset, mask[..., :9], *SQUARE)


def filled(**options: Any) -> DCNv3:
    module = DCNv3(16, **options)
    fill_with_recipe(module)
    return module.double()


X = torch.randn(2, 6, 7, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_starts_as_an_average():
    """Of the nine pixels around, with zeros beyond the border."""
    module = DCNv3(16).double()
    values = module.input_proj(X).permute(0, 3, 1, 2)
    expected = module.output_proj(F.avg_pool2d(values, 3, 1, 1).permute(0, 2, 3, 1))
    assert_close(module(X), expected)
    nn.init.ones_(module.offset.weight)
    module.reset_parameters()
    assert not module.offset.weight.any()


@pytest.mark.parametrize("dw_kernel_size", [None, 5])
def test_strides_and_pads_move_positions_alone(dw_kernel_size):
    expected = filled(dw_kernel_size=dw_kernel_size)(X)
    assert_close(filled(dw_kernel_size=dw_kernel_size, stride=2)(X), expected[:, ::2, ::2])
    assert_close(filled(dw_kernel_size=dw_kernel_size, pad=2)(X)[:, 1:-1, 1:-1], expected)


def test_sizes_without_a_common_center_are_refused():
    for options in ({"dw_kernel_size": 4}, {"pad": 0, "dilation": 2}, {"kernel_size": 2}):
        if options == {"kernel_size": 2}:
            options = {**options, "dw_kernel_size": 3}
        with pytest.raises(ValueError, match="has no center where"):
            DCNv3(16, **options)
    with pytest.raises(ValueError, match="15 are not divisible by group 4"):
        DCNv3(15)


def test_center_feature_scale():
    module, plain = filled(center_feature_scale=True), filled()
    names = set(module.state_dict()) - set(plain.state_dict())
    assert names == {"center_feature_scale_proj_weight", "center_feature_scale_proj_bias"}
    share = (module.dw_conv(X.permute(0, 3, 1, 2)) @ module.center_feature_scale_proj_weight.T
             + module.center_feature_scale_proj_bias).sigmoid()  # fmt: skip
    share = share[..., None].expand(*share.shape, 4).flatten(3)
    for layer in (module.output_proj, plain.output_proj):
        nn.init.eye_(layer.weight), nn.init.zeros_(layer.bias)
    assert_close(module(X), plain(X) * (1 - share) + plain.input_proj(X) * share)
    for options in ({"stride": 2}, {"pad": 2}):
        with pytest.raises(ValueError, match="center_feature_scale mixes the input"):
            DCNv3(16, center_feature_scale=True, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """Points keep single precision, so the result is as good as its dtype."""
    inputs = [x.to(dtype) for x in random_inputs((40, 60), SQUARE)]
    y = DCNv3Function.apply(*inputs, *SQUARE)
    assert y.dtype == dtype
    expected = DCNv3Function.apply(*(x.double() for x in inputs), *SQUARE)
    assert_close(y.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=2e-3)
    module = filled().to(dtype)
    expected = module.double()(X)
    assert_close(module.to(dtype)(X.to(dtype)).double(), expected, rtol=0.05, atol=0.05)


def test_export_with_symbolic_sizes():
    module = filled(stride=2, offset_scale=1.5).eval()
    sizes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    program = export(module, (X,), dynamic_shapes=(sizes,)).module()
    for x in (X, X[:1, :3, :4], X.transpose(1, 2).repeat(2, 1, 1, 1)):
        assert_close(program(x), module(x))


def test_norms_and_activations_by_name():
    x = torch.randn(2, 4, 5, 3)
    for norm, place in (("LN", 0), ("BN", 1)):
        layer = build_norm_layer(3, norm)
        assert next(iter(layer.state_dict())) == f"{place}.weight"
        y = layer(x)
        axes = (0, 1, 2) if norm == "BN" else (3,)
        assert y.shape == x.shape and y.mean(axes).abs().max() < 1e-5
        first = build_norm_layer(3, norm, "channels_first", "channels_first")
        assert next(iter(first.state_dict())) == f"{1 - place}.weight"
        assert_close(first(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), y)
    assert build_norm_layer(3, "LN", eps=0.5)[0].eps == 0.5
    with pytest.raises(ValueError, match="no norm_layer 'GN'; there are"):
        build_norm_layer(3, "GN")
    assert isinstance(build_act_layer("SiLU"), nn.SiLU)
    with pytest.raises(ValueError, match="no act_layer 'gelu'; there are ReLU, SiLU, GELU"):
        build_act_layer("gelu")
