"""Each example of the page runs, and a model with it trains for a step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import zoo
from detectron2.config import instantiate
from toy_models import FAMILIES, tiny

from detrex.config import get_config

PAGE = (Path(__file__).parents[2] / "docs" / "seams.md").read_text()
HEAD, *BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LOSSES = {  # a loss that the example brings, or one that it must not lose
    "RootIoULoss": "loss_class",
    "LikeTheLast": "loss_like_0",
    "CenterOutside": "loss_bbox",
    "RunningLogits": "loss_quality",
    "TargetsThemselves": "loss_class_own_0",
    "Grid": "loss_giou",
    "MixingEncoder": "loss_class",
}


def name(block: str) -> str:
    return re.search(r"^class (\w+)", block, re.MULTILINE).group(1)


def test_every_example_is_tested():
    assert [name(block) for block in BLOCKS] == list(LOSSES)


@pytest.mark.parametrize("block", BLOCKS, ids=name)
def test_a_model_with_it_trains(block):
    config = tiny(get_config(FAMILIES["dino"]).model)
    namespace = {"model": config, "__name__": "own_module"}
    exec(HEAD + block, namespace)
    torch.manual_seed(0)
    model = instantiate(config).train()
    classes = {type(module).__name__ for module in model.modules()}
    classes.add(type(model.transformer.decoder.predictor).__name__)
    assert name(block) in classes
    batch = [
        zoo.image(96, 128, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2]),
        zoo.image(64, 96, [(5, 8, 40, 50)], [1], seed=1),
    ]
    losses = model(batch)
    assert losses[LOSSES[name(block)]].isfinite()
    sum(losses.values()).backward()
    lacking = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []
    assert len(model.eval()(batch)) == 2


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links(link):
    assert (Path(__file__).parents[2] / "docs" / link).exists()
