"""Every parameter of every model starts with the distribution that its authors' code gave it.

The rules below say which; the first whose pattern fits the name counts. Sources:

- DETR (2005.12872): Xavier-uniform matrices in the transformer, PyTorch's own start for the heads,
  the projection of the features and all biases, queries from the standard normal distribution.
- RetinaNet (1708.02002): class biases of ``-log(99)``, a probability of 0.01.
- Deformable-DETR (2010.04159), and all that build on it: deformable attention looks into one
  direction per head and weighs all points alike; boxes start as their anchors, of logits -2.0 for
  width and height where no proposal gives them a size; normal level embeddings; Xavier-uniform
  projections with zero bias.
- DAB-DETR (2201.12329): normal logits of anchors, or uniform centers where the config asks for
  them; PReLU at PyTorch's 0.25.
- DINO (2203.03605): its learned contents are matrices of the transformer, hence Xavier-uniform.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import pytest
import reference_ops
import torch
from detectron2.config import instantiate
from torch import Tensor, nn
from toy_models import FAMILIES, tiny

from detrex.config import get_config

Check = Callable[[Tensor, Tensor], None]
"""Takes a parameter and the matrix that it belongs to: itself, or the weight next to a bias."""

SINGLE_LEVEL = ("detr", "conditional_detr", "dab_detr", "dn_detr", "group_detr")
GUESSES_SIZE = (  # one-stage models whose boxes are relative to points or learned anchors
    "deformable_detr",
    "deformable_detr_refine",
    "dab_deformable_detr",
    "dn_deformable_detr",
    "h_deformable_detr",
)


def fans(matrix: Tensor) -> tuple[int, int]:
    """Inputs and outputs of a linear layer or a convolution."""
    area = math.prod(matrix.shape[2:])
    return matrix.shape[1] * area, matrix.shape[0] * area


def constant(value: float) -> Check:
    def check(parameter: Tensor, matrix: Tensor) -> None:
        torch.testing.assert_close(parameter, torch.full_like(parameter, value))

    return check


def has_moments(parameter: Tensor, std: float, kurtosis: float) -> None:
    """Mean 0 and this deviation, within five standard errors of these estimates."""
    n = parameter.numel()
    assert abs(parameter.mean()) < 5 * std / n**0.5
    assert abs(parameter.var(correction=0) / std**2 - 1) < 5 * ((kurtosis - 1) / n) ** 0.5


def normal(parameter: Tensor, matrix: Tensor) -> None:
    has_moments(parameter, 1.0, kurtosis=3.0)
    beyond = (parameter.abs() > 2).float().mean()  # 4.55 % of a normal distribution
    assert abs(beyond - 0.0455) < 5 * (0.0455 / parameter.numel()) ** 0.5


def uniform(parameter: Tensor, bound: float) -> None:
    has_moments(parameter, bound / 3**0.5, kurtosis=1.8)
    assert parameter.abs().max() <= bound
    # all n values miss the outer tenth of the range with probability 0.9^n
    assert parameter.numel() < 150 or parameter.abs().max() > 0.9 * bound


def xavier(parameter: Tensor, matrix: Tensor) -> None:
    uniform(parameter, (6 / sum(fans(matrix))) ** 0.5)


def torch_default(parameter: Tensor, matrix: Tensor) -> None:
    """PyTorch's start of weights and biases of linear layers and convolutions."""
    uniform(parameter, fans(matrix)[0] ** -0.5)


def uniform_centers(parameter: Tensor, matrix: Tensor) -> None:
    """Logits of centers uniform in the image, and normal logits of sizes."""
    uniform(2 * parameter[:, :2].sigmoid() - 1, 1.0)
    normal(parameter[:, 2:], matrix)


def directions(parameter: Tensor, matrix: Tensor) -> None:
    """Eight heads look along the sides and diagonals of a square, point ``i`` at ``i`` cells."""
    compass = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    expected = torch.tensor(compass)[:, None, None] * torch.arange(1, 5)[:, None]
    offsets = parameter.view(8, -1, 4, 2)  # heads, levels, points, x and y
    torch.testing.assert_close(offsets, expected.expand_as(offsets).float(), rtol=0, atol=1e-5)


def size_guess(logit: float) -> Check:
    def check(parameter: Tensor, matrix: Tensor) -> None:
        torch.testing.assert_close(parameter, torch.tensor([0.0, 0.0, logit, logit]))

    return check


def rules(family: str) -> Iterator[tuple[str, Check]]:
    """Patterns of names and what the parameters are to look like."""
    if family == "detr":
        yield r"class_embed|bbox_embed", torch_default
    yield r"class_embed\.(\d+\.)?weight", torch_default
    yield r"class_embed\.(\d+\.)?bias", constant(-math.log(99))
    if family in GUESSES_SIZE:
        yield r"decoder\.bbox_embed\.0\.layers\.2\.bias", size_guess(-2.0)
    yield r"bbox_embed\.(\d+\.)?layers\.2", constant(0.0)
    yield r"bbox_embed", torch_default

    yield r"norms?(\.\d+)?\.weight", constant(1.0)
    yield r"norms?(\.\d+)?\.bias", constant(0.0)
    if family in SINGLE_LEVEL:
        yield r"neck", torch_default
    yield r"neck.*weight", xavier
    yield r"neck.*bias", constant(0.0)

    yield r"sampling_offsets\.bias", directions
    yield r"sampling_offsets\.weight|attention_weights", constant(0.0)
    yield r"(value|output)_proj\.bias" if family not in SINGLE_LEVEL else r"$^", constant(0.0)
    yield r"attn\.(in_proj_|out_proj\.)bias", constant(0.0)
    yield r"activation", constant(0.25)

    yield r"level_embeds|queries\.pos|denoising\.labels", normal
    yield r"queries\.content", xavier if "dino" in family else normal
    yield r"queries\.anchors", uniform_centers if family == "dab_detr" else normal
    if family not in SINGLE_LEVEL:
        yield r"anchor_head\.bias", constant(0.0)
    yield r"weight", xavier
    yield r"bias", torch_default


def check_of(name: str, family: str) -> Check:
    return next(check for pattern, check in rules(family) if re.search(pattern, name))


def built(family: str) -> nn.Module:
    """Enough numbers of each kind for their moments to say something."""
    config = tiny(get_config(FAMILIES[family]).model, embed_dim=128)
    config.num_queries = 60
    groups = config.transformer.groups
    if "one_to_many" in groups:
        config.transformer.queries.num_queries = 90
    torch.manual_seed(0)
    return instantiate(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_initial_distributions(family):
    parameters = dict(built(family).named_parameters())
    for name, parameter in parameters.items():
        if not name.startswith("backbone"):
            matrix = parameters.get(name.replace("bias", "weight"), parameter)
            try:
                check_of(name, family)(parameter.detach(), matrix)
            except AssertionError as e:
                raise AssertionError(f"{name} of {family}: {e}") from e


def test_offsets_are_those_of_the_reference():
    reference = reference_ops.load("ms_deform_attn_module")
    model = built("deformable_detr")
    for layer in model.transformer.encoder.layers:
        torch.testing.assert_close(
            layer.attentions[0].sampling_offsets.bias.detach(),
            reference["init_default_sampling_offsets_bias"],
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (normal, torch.rand(4000) * 12**0.5 - 3**0.5),
        (normal, torch.randn(4000) * 1.1),
        (normal, torch.randn(4000) + 0.2),
        (xavier, torch.randn(60, 60) / 60**0.5),
        (xavier, (torch.rand(60, 60) - 0.5) * 2 / 60**0.5),
        (torch_default, (torch.rand(60, 60) - 0.5) * 2 * (6 / 120) ** 0.5),
        (directions, torch.zeros(256)),
        (size_guess(-2.0), torch.zeros(4)),
    ],
)
def test_other_distributions_are_noticed(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong, wrong)
