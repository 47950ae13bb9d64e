"""Sine and learned positions."""

from __future__ import annotations

import json
import math

import pytest
import reference_ops
import torch
from reference_recipe import fill_with_recipe
from torch.testing import assert_close

from detrex.layers import (
    PositionEmbeddingLearned,
    PositionEmbeddingSine,
    get_sine_pos_embed,
    sine_position_embedding,
)
from detrex.utils.errors import InvalidArgument

REFERENCE = reference_ops.load("position_embedding")
VARIANTS = json.loads(str(REFERENCE["sine_variants"]))


@pytest.mark.parametrize("name", VARIANTS)
def test_sine_agrees_with_the_reference(name):
    embedding = PositionEmbeddingSine(**VARIANTS[name])
    assert_close(embedding(REFERENCE["mask"]), REFERENCE[f"sine_{name}"], rtol=0, atol=1e-6)


def test_sine_follows_its_formula():
    """Row 2 of 4 with offset -0.5 lies at (3 - 0.5) / 4 of the circle (eps = 0)."""
    embedding = PositionEmbeddingSine(4, temperature=100, normalize=True, offset=-0.5, eps=0)
    embed = embedding(torch.zeros(1, 4, 5, dtype=torch.bool), dtype=torch.float64)
    angle = (3 - 0.5) / 4 * 2 * math.pi
    waves = [math.sin(angle), math.cos(angle), math.sin(angle / 10), math.cos(angle / 10)]
    assert_close(embed[0, :4, 2, 0], torch.tensor(waves, dtype=torch.float64))
    assert (embed[0, :4, 2] == embed[0, :4, 2, :1]).all()  # y doesn't depend on the column


@pytest.mark.parametrize("normalize", [False, True])
def test_sine_doesnt_see_padding(normalize):
    embedding = PositionEmbeddingSine(8, normalize=normalize)
    alone = embedding(torch.zeros(1, 3, 5, dtype=torch.bool))
    mask = torch.ones(1, 7, 6, dtype=torch.bool)
    mask[:, :3, :5] = False
    assert torch.equal(embedding(mask)[..., :3, :5], alone)


def test_without_padding_one_row_and_column_stand_for_all():
    mask = torch.zeros(2, 6, 5, dtype=torch.bool)
    embedding = PositionEmbeddingSine(8, temperature=(20, 10000), normalize=True, offset=-0.5)
    assert torch.equal(embedding(mask, padded=False), embedding(mask))


def test_sine_takes_a_temperature_per_axis():
    mask = REFERENCE["mask"]
    both = PositionEmbeddingSine(8, temperature=(20, 10000))(mask)
    assert torch.equal(both[:, :8], PositionEmbeddingSine(8, temperature=20)(mask)[:, :8])
    assert torch.equal(both[:, 8:], PositionEmbeddingSine(8)(mask)[:, 8:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sine_has_the_dtype_asked_for(dtype):
    assert PositionEmbeddingSine(8, normalize=True)(REFERENCE["mask"], dtype).dtype == dtype


def test_sine_of_an_embed_dim_has_that_width():
    mask = REFERENCE["mask"]
    expected = PositionEmbeddingSine(32, normalize=True)(mask)
    assert torch.equal(sine_position_embedding(64, normalize=True)(mask), expected)
    with pytest.raises(ValueError, match="divisible by 4"):
        sine_position_embedding(66)


def test_sine_takes_one_number_as_scale():
    with pytest.raises(InvalidArgument, match=r"scale is \(3.0,\), but must be a number"):
        PositionEmbeddingSine(8, scale=(3.0,), normalize=True)


def test_learned_agrees_with_the_reference():
    embedding = PositionEmbeddingLearned(8)
    fill_with_recipe(embedding)
    assert sorted(embedding.state_dict()) == list(REFERENCE["learned_keys"])
    assert_close(embedding(REFERENCE["mask"]), REFERENCE["learned"])


def test_learned_starts_uniform_in_the_unit_interval():
    """Like the reference, whose smallest, largest and mean values are 5e-5, 0.99999 and 0.5007."""
    weight = PositionEmbeddingLearned(256).row_embed.weight
    assert weight.min() >= 0 and weight.max() <= 1
    assert abs(weight.mean() - 0.5) < 6 / math.sqrt(12 * weight.numel())  # six sigma


def test_learned_refuses_images_beyond_its_table():
    embedding = PositionEmbeddingLearned(4, row_num_embed=3, col_num_embed=5)
    assert embedding(torch.zeros(2, 3, 5, dtype=torch.bool)).shape == (2, 8, 3, 5)
    with pytest.raises(ValueError, match=r"4 rows and 5 columns.*row_num_embed"):
        embedding(torch.zeros(2, 4, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    ("name", "points", "options"),
    [
        ("embed2", "pos2", {}),
        ("embed4", "pos4", {}),
        ("embed2_f16", "pos2", {"num_pos_feats": 16}),
        ("embed4_f16_noswap", "pos4", {"num_pos_feats": 16, "exchange_xy": False}),
        ("embed4_f16_t20", "pos4", {"num_pos_feats": 16, "temperature": 20}),
    ],
)
def test_embedded_points_agree_with_the_reference(name, points, options):
    embed = get_sine_pos_embed(REFERENCE[points], **options)
    assert_close(embed, REFERENCE[name], rtol=0, atol=1e-6)


def test_embedded_points_keep_dtype_shape_and_gradient():
    points = torch.rand(2, 0, 3, 2, dtype=torch.float64)
    assert get_sine_pos_embed(points, 6).shape == (2, 0, 3, 12)
    points = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    embed = get_sine_pos_embed(points, 6)
    assert embed.dtype == torch.float64
    assert torch.autograd.gradcheck(lambda p: get_sine_pos_embed(p, 6), points)
