"""The page's project and its delta train alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import zoo
from detectron2.config import instantiate
from toy_models import tiny

from detrex.modeling.matcher import HungarianMatcher

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "coming_from_the_public_detrex.md").read_text()
PROJECT, CLASS, CONFIG, COMPARE = re.findall(
    r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
)


def test_project_and_delta_have_the_same_losses():
    generator = torch.Generator().manual_seed(0)
    boxes = 0.05 + 0.9 * torch.rand(2, 9, 4, generator=generator)
    wanted = [0.05 + 0.9 * torch.rand(n, 4, generator=generator) for n in (3, 2)]
    wanted[0][0, 2:] = wanted[1][1, 2:] = 0.05  # small ones
    namespace = {
        "num_classes": 4,
        "matcher": HungarianMatcher(2, 5, 2),
        "weight_dict": {},
        "logits": torch.randn(2, 9, 4, generator=generator),
        "boxes": boxes,
        "targets": [{"labels": torch.arange(len(w)), "boxes": w} for w in wanted],
        "__name__": "own_module",
    }
    exec(PROJECT + CLASS + COMPARE, namespace)
    plain = namespace["SetCriterion"](4, namespace["matcher"], {})
    outputs, targets = namespace["outputs"], namespace["targets"]
    assert plain(outputs, targets)["loss_bbox"] < namespace["old"](outputs, targets)["loss_bbox"]


def test_the_config_trains():
    namespace = {"__name__": "own_module"}
    exec(CLASS + CONFIG, namespace)
    assert namespace["train"].output_dir == "./output/small_first"
    model = instantiate(tiny(namespace["model"])).train()
    losses = model([zoo.image(96, 128, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2])])
    assert type(model.criterion.terms[0]).__name__ == "SmallFirst"
    assert losses["loss_bbox_0"].isfinite()
    sum(losses.values()).backward()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links(link):
    assert (DOCS / link).exists()
