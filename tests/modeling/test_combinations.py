"""Any base and any sensible group of training-only queries, put together by config alone."""

from __future__ import annotations

import pytest
import torch
import zoo
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn
from toy_models import FAMILIES, tiny

from detrex.config import get_config
from detrex.modeling.query_groups import ContrastiveDenoising, Denoising, GroupCopies, OneToMany

BATCH = [
    zoo.image(64, 96, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2]),
    zoo.image(96, 64, [], [], seed=1),
]


def denoising(model: DictConfig) -> None:
    size = {"num_classes": "${....num_classes}", "embed_dim": "${....embed_dim}"}
    model.transformer.groups.denoising = L(Denoising)(num_groups=2, **size)


def contrastive(model: DictConfig) -> None:
    size = {"num_classes": "${....num_classes}", "embed_dim": "${....embed_dim}"}
    model.transformer.groups.denoising = L(ContrastiveDenoising)(num_pairs=4, **size)


def one_to_many(model: DictConfig) -> None:
    model.transformer.queries.num_queries = 2 * model.num_queries
    model.transformer.groups.one_to_many = L(OneToMany)(num_queries="${....num_queries}", repeats=2)


def one_to_many_of_the_same(model: DictConfig) -> None:
    model.transformer.groups.one_to_many = L(OneToMany)(num_queries="${....num_queries}")


def copies(model: DictConfig) -> None:
    model.transformer.groups.copies = L(GroupCopies)(num_queries="${....num_queries}", num_groups=2)
    model.transformer.queries.num_groups = 2


ONE_STAGE = ("conditional_detr", "dab_detr", "deformable_detr", "dab_deformable_detr")
TWO_STAGE = ("deformable_detr_two_stage", "dab_deformable_detr_two_stage", "dino")
COMBINATIONS = [
    *[(base, (denoising,)) for base in ONE_STAGE + TWO_STAGE],
    *[(base, (contrastive,)) for base in ONE_STAGE + TWO_STAGE],
    *[(base, (one_to_many,)) for base in ("detr", *ONE_STAGE, *TWO_STAGE)],
    *[(base, (copies,)) for base in ("detr", *ONE_STAGE)],
    *[(base, (one_to_many, contrastive)) for base in ONE_STAGE + TWO_STAGE],
    *[(base, (contrastive, one_to_many)) for base in ONE_STAGE + TWO_STAGE],
    *[(base, (copies, denoising)) for base in ONE_STAGE],
    *[(base, (denoising, copies)) for base in ONE_STAGE],
]


def name(value: object) -> str:
    return value if isinstance(value, str) else "+".join(part.__name__ for part in value)


def build(base: str, parts: tuple) -> nn.Module:
    config = tiny(get_config(FAMILIES[base]).model)
    for part in parts:
        part(config)
    torch.manual_seed(0)
    return instantiate(config)


@pytest.mark.parametrize(("base", "parts"), COMBINATIONS, ids=name)
def test_trains_and_evaluates(base, parts):
    model = build(base, parts).train()
    for batch in (BATCH, BATCH[1:]):
        model.zero_grad()
        losses = model(batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    assert ("loss_class_dn" in losses) == (
        denoising in parts or contrastive in parts or base == "dino"
    )
    assert ("loss_class_one2many" in losses) == (one_to_many in parts)
    model.eval()
    with torch.no_grad():
        assert model.predict(model.preprocess(BATCH))[0].boxes.shape == (2, model.num_queries, 4)


@pytest.mark.parametrize(("base", "parts"), COMBINATIONS, ids=name)
def test_matching_queries_predict_what_they_would_alone(base, parts):
    """In training, beside all others, exactly what they predict at evaluation."""
    model = build(base, parts).eval()
    with torch.no_grad():
        images, targets = model.preprocess(BATCH), model.prepare_targets(BATCH)
        alone = model.predict(images)[0]
        beside = model.predict(images, targets)[0]
    kept = model.num_queries
    torch.testing.assert_close(beside.logits[:, :kept], alone.logits)
    torch.testing.assert_close(beside.boxes[:, :kept], alone.boxes)


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((denoising,), "Denoising needs queries with anchors"),
        ((one_to_many, copies), "2 groups of 12 queries need 24"),
        ((copies, one_to_many_of_the_same), "OneToMany and GroupCopies both split"),
    ],
    ids=name,
)
def test_what_does_not_go_together_says_so(parts, error):
    model = build("detr", parts).train()
    with pytest.raises(ValueError, match=error):
        model(BATCH)
