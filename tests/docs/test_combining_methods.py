"""Each code block of the page is a config file, whose model is built small and trained a step."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import zoo
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from torch import nn
from toy_models import tiny

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorials" / "combining_methods.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
ADDED = {  # what makes the added queries, and how the names of their losses end
    "dino_hybrid": ("queries.content.weight", "_one2many"),
    "conditional_detr_denoising": ("groups.denoising.labels.weight", "_dn"),
    "deformable_detr_groups": ("queries.content.weight", ""),
}
FULL = zoo.image(64, 96, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2])
EMPTY = zoo.image(96, 64, [], [], seed=1)


def place(block: str) -> Path:
    return Path(block.splitlines()[0].lstrip("# "))


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Load a block from where it says to put it, in a copy of the configs."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "configs", folder / "configs")

    def run(name: str) -> DictConfig:
        (block,) = [block for block in BLOCKS if place(block).stem == name]
        path = folder / place(block)
        path.write_text(block)
        return LazyConfig.load(str(path))

    return run


@pytest.fixture
def build(load):
    def run(name: str) -> nn.Module:
        torch.manual_seed(0)
        return instantiate(tiny(load(name).model)).train()

    return run


def test_every_block_is_tested_and_short():
    assert [place(block).stem for block in BLOCKS] == list(ADDED)
    for block in BLOCKS:
        code = [line for line in block.splitlines() if line and not line.startswith("#")]
        assert 5 <= len(code) <= 12


@pytest.mark.parametrize("name", ADDED)
def test_is_a_complete_recipe_of_the_published_size(load, name):
    config = load(name)
    assert {"model", "dataloader", "optimizer", "lr_multiplier", "train"} <= set(config)
    assert config.train.output_dir.endswith(name)
    model, groups = config.model, config.model.transformer.groups
    if name == "dino_hybrid":
        assert model.transformer.queries.num_queries == 2 * model.num_queries == 1800
        assert set(groups) == {"denoising", "one_to_many", "_target_"}
    if name == "deformable_detr_groups":
        assert model.transformer.queries.num_groups == groups.copies.num_groups == 11


@pytest.mark.parametrize("name", ADDED)
def test_every_parameter_is_trained_with_and_without_objects(build, name):
    model = build(name)
    for batch in ([FULL, EMPTY], [EMPTY]):
        model.zero_grad()
        losses = model(batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", ADDED)
def test_losses_of_both_kinds_of_queries(build, name):
    losses = build(name)([FULL, EMPTY])
    suffix = ADDED[name][1]
    for loss in ("loss_class", "loss_bbox", "loss_giou"):
        for layer in ("", "_0"):
            added = f"{loss}{suffix}{layer}" if suffix == "_dn" else f"{loss}{layer}{suffix}"
            assert losses[loss + layer] > 0
            assert losses[added] > 0


@pytest.mark.parametrize("name", ADDED)
def test_evaluation_has_the_matching_queries_alone(build, name):
    model = build(name).eval()
    with torch.no_grad():
        images = model.preprocess([FULL, EMPTY])
        assert {p.boxes.shape[1] for p in model.predict(images) if p.suffix != "_enc"} == {12}
        trained = model.predict(images, model.prepare_targets([FULL, EMPTY]))[0]
        torch.testing.assert_close(model.predict(images)[0].boxes, trained.boxes[:, :12])


@pytest.mark.parametrize("name", ADDED)
def test_nothing_of_the_added_queries_reaches_the_matching_ones(build, name):
    model = build(name)
    with torch.no_grad():
        for head in model.transformer.decoder.bbox_embed:  # the last weights start at zero
            nn.init.normal_(head.layers[-1].weight, std=0.1)
    targets = model.prepare_targets([FULL, EMPTY])
    predictions = model.predict(model.preprocess([FULL, EMPTY]), targets)
    weight = model.transformer.get_parameter(ADDED[name][0])
    # the first queries are the matching ones; the last label, "unknown", is theirs
    added = slice(12, None) if ADDED[name][0].startswith("queries") else slice(0, 3)
    matching = sum(
        p.logits[:, :12].sum() + p.boxes[:, :12].sum()
        for p in predictions
        if p.suffix in ("", "_0")
    )
    (leak,) = torch.autograd.grad(matching, weight, retain_graph=True, allow_unused=True)
    assert leak is None or not leak[added].any()
    everything = sum(p.logits.sum() + p.boxes.sum() for p in predictions)
    (influence,) = torch.autograd.grad(everything, weight)
    assert influence[added].any()
