"""Names of backbones that others wrote by hand lead to the same parameters of timm's networks."""

from __future__ import annotations

import pytest
import torch
import upstream_backbones
from torch import nn
from torch.overrides import TorchFunctionMode

from detrex.checkpoint import load_weights
from detrex.checkpoint.backbone_rules import as_pointwise


class WithoutInitialization(TorchFunctionMode):
    """Leaves random numbers out; tensors without storage have no use for them, yet take long."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in {"uniform_", "normal_", "erfinv_", "clamp_"}:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def detector(name: str) -> nn.Module:
    """Something with the backbone of the reference's detector ``name``, on the meta device."""
    with WithoutInitialization(), torch.device("meta"):
        return nn.ModuleDict({"backbone": upstream_backbones.build(name)})


@pytest.mark.parametrize("name", upstream_backbones.ARGUMENTS)
def test_every_name_of_upstream(name):
    model = detector(name)
    theirs = upstream_backbones.names_and_shapes(name)
    shapes = {**theirs["parameters"], **theirs["buffers"]}
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    report = load_weights(model, state)
    assert report.unexpected == report.missing == []
    assert report.mismatched == {}
    assert sorted(report.ignored) == sorted(theirs["buffers"])
    assert len(report.loaded) == len(theirs["parameters"])  # no two go to one place
    assert set(report.loaded) == {key for key, _ in model.named_parameters()}


def test_files_of_the_authors_have_no_prefix():
    name = "dino_swin_tiny_224"
    model = detector(name)
    shapes = upstream_backbones.names_and_shapes(name)["parameters"]
    state = {
        key.removeprefix("backbone."): torch.empty(shape, device="meta")
        for key, shape in shapes.items()
        if not key.startswith("backbone.norm")
    }
    state["head.weight"] = torch.empty(1000, 768, device="meta")
    state["layers.0.blocks.1.attn_mask"] = torch.empty(64, 49, 49, device="meta")
    report = load_weights(model, state)
    assert report.unexpected == []
    assert sorted(report.ignored) == ["head.weight", "layers.0.blocks.1.attn_mask"]
    assert {key.split(".")[1] for key in report.missing} == {"norms"}


def test_a_linear_layer_as_a_convolution():
    matrix = torch.randn(3, 5)
    kernel = as_pointwise(matrix, torch.empty(3, 5, 1, 1))
    x = torch.randn(2, 5, 4, 6)
    expected = torch.einsum("oc,bchw->bohw", matrix, x)
    torch.testing.assert_close(torch.conv2d(x, kernel), expected)
    torch.testing.assert_close(as_pointwise(kernel, matrix), matrix)


@pytest.mark.parametrize("wanted", [(5, 3), (5, 3, 1, 1), (3, 5, 3, 3), (15,)])
def test_other_shapes_stay(wanted):
    assert as_pointwise(torch.zeros(3, 5), torch.zeros(wanted)).shape == (3, 5)
