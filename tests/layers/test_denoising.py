"""Denoising queries as modules of their own."""

from __future__ import annotations

import pytest
import torch
from reference_ops import load
from reference_recipe import recipe_value

from detrex.layers.denoising import (
    GenerateCDNQueries,
    GenerateDNQueries,
    apply_box_noise,
    apply_label_noise,
)
from detrex.utils import inverse_sigmoid

REFERENCE = load("denoising")
LABELS = list(REFERENCE["labels"].split([3, 1]))
BOXES = list(REFERENCE["boxes"].split([3, 1]))


def test_noise_is_the_reference_with_its_seed():
    torch.manual_seed(0)
    boxes = apply_box_noise(REFERENCE["boxes"], 0.4)
    torch.testing.assert_close(boxes, REFERENCE["apply_box_noise_seed0"], rtol=0, atol=0)
    torch.manual_seed(0)
    labels = apply_label_noise(REFERENCE["labels"], 0.5, 6)
    torch.testing.assert_close(labels, REFERENCE["apply_label_noise_seed0"])


def test_no_noise_changes_and_draws_nothing():
    state = torch.get_rng_state()
    assert apply_box_noise(REFERENCE["boxes"], 0.0) is REFERENCE["boxes"]
    assert apply_label_noise(REFERENCE["labels"], 0.0, 6) is REFERENCE["labels"]
    assert torch.equal(state, torch.get_rng_state())


def test_label_noise_leaves_its_input():
    labels = torch.zeros(50, dtype=torch.long)
    noisy = apply_label_noise(labels, 1.0, 6)
    assert labels.eq(0).all() and noisy.ne(0).any() and noisy.lt(6).all()


@pytest.mark.parametrize("indicator", [0, 1])
def test_dn_queries_are_the_reference(indicator):
    generate = GenerateDNQueries(5, 6, 8, 3, 0.0, 0.0, bool(indicator))
    assert [name for name, _ in generate.named_parameters()] == ["label_encoder.weight"]
    with torch.no_grad():
        table = generate.label_encoder.weight
        table.copy_(torch.from_numpy(recipe_value("label_encoder.weight", tuple(table.shape))))
    content, boxes, mask, *counts = generate(LABELS, BOXES)
    name = f"dn_ind{indicator}"
    torch.testing.assert_close(content, REFERENCE[f"{name}_label_queries"])
    torch.testing.assert_close(boxes, REFERENCE[f"{name}_box_queries"])
    assert torch.equal(mask, REFERENCE[f"{name}_attn_mask"])
    assert counts == REFERENCE[f"{name}_groups_and_max"].tolist()
    content.sum().backward()
    assert table.grad.abs().sum() > 0


@pytest.mark.parametrize("noise", [False, True])
def test_contrastive_queries_are_the_reference(noise):
    generate = GenerateCDNQueries(5, 6, 8, 3, 0.5 * noise, 1.0 * noise)
    table = generate.label_encoder.weight.data
    table[LABELS[0]] = REFERENCE["cdn_label"][0, :3]
    table[LABELS[1]] = REFERENCE["cdn_label"][1, :1]
    torch.manual_seed(0)
    content, boxes, mask, meta = generate(LABELS, BOXES)
    name = "cdn_noise_seed0_" if noise else "cdn_"
    torch.testing.assert_close(content, REFERENCE[f"{name}label"])
    torch.testing.assert_close(boxes, REFERENCE[f"{name}box"], rtol=1e-5, atol=1e-5)
    assert torch.equal(mask, REFERENCE["cdn_attn_mask"])
    assert meta == {"single_padding": 6, "dn_num": 1}


def test_contrastive_groups_share_the_number_of_queries():
    content, boxes, mask, meta = GenerateCDNQueries(5, 6, 8, 7)(LABELS, BOXES)
    assert meta == {"single_padding": 6, "dn_num": 2}
    assert content.shape == (2, 12, 8) and boxes.shape == (2, 12, 4) and mask.shape == (17, 17)
    assert mask[:6, 6:12].all() and mask[6:12, :6].all() and not mask[:, 12:].any()
    # Negative queries lie further from the truth than positive ones of the same target.
    torch.manual_seed(1)
    errors = torch.zeros(2)
    for _ in range(50):
        noisy = GenerateCDNQueries(5, 6, 8, 3)(LABELS, BOXES)[1][0].sigmoid()
        errors += (noisy - BOXES[0].repeat(2, 1)).abs().view(2, -1).sum(1)
    assert errors[1] > 1.5 * errors[0]


def test_boxes_are_logits():
    _, boxes, _, _, _ = GenerateDNQueries(5, 6, 8, 1, 0.0, 0.0)(LABELS, BOXES)
    torch.testing.assert_close(boxes[1, 0], inverse_sigmoid(BOXES[1][0]))


@pytest.mark.parametrize("kind", [GenerateDNQueries, GenerateCDNQueries])
def test_images_without_targets(kind):
    empty = [labels[:0] for labels in LABELS], [boxes[:0] for boxes in BOXES]
    content, boxes, mask, *_ = kind(5, 6, 8)(*empty)
    assert content.shape == (2, 0, 8) and boxes.shape == (2, 0, 4)
    assert mask.shape == (5, 5) and not mask.any()
