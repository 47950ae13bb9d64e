"""Each code block of the page is in the file it quotes, or is a config that trains."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import zoo
from detectron2.config import LazyConfig, instantiate

from detrex.modeling.variants.stable_dino import (
    PositionModulatedCost,
    PositionSupervisedLoss,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorials" / "add_your_own_variant.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
QUOTED = {
    "    def positives(": "detrex/modeling/variants/stable_dino.py",
    "    def forward(self, candidates": "detrex/modeling/variants/stable_dino.py",
    "from detectron2.config": "configs/stable_dino/models/stable_dino_r50.py",
    "def test_boxes_that_fit": "tests/modeling/variants/test_stable_dino.py",
}
OWN = "# configs/h_deformable_detr/models/own_variant.py"


def block(start: str) -> str:
    (found,) = [text for text in BLOCKS if text.startswith(start)]
    return found


@pytest.mark.parametrize("start", QUOTED)
def test_quotes_are_what_the_files_say(start):
    assert block(start) in (ROOT / QUOTED[start]).read_text()


def test_every_block_is_tested():
    assert {block(start) for start in (*QUOTED, OWN)} == set(BLOCKS)


def test_the_variant_of_another_model_trains_a_step(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    path = tmp_path / OWN.lstrip("# ")
    path.write_text(block(OWN))
    torch.manual_seed(0)
    model = instantiate(zoo.shrink(LazyConfig.load(str(path)).model)).train()
    assert type(model.criterion.class_loss) is PositionSupervisedLoss
    assert type(model.criterion.matcher.class_cost) is PositionModulatedCost
    losses = model([zoo.image(64, 96, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2])])
    sum(losses.values()).backward()
    lacking = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


def test_files_that_the_page_names_exist():
    linked = [PAGE.parent / link for link in re.findall(r"\]\((\.\./[^)]+)\)", TEXT)]
    named = [ROOT / name for name in re.findall(r"\b(?:configs|tests|tools)/[\w/-]+\.py", TEXT)]
    missing = [str(path) for path in (*linked, *named) if not path.exists()]
    assert len(linked) >= 4 and len(named) >= 6
    assert missing == [str(ROOT / OWN.lstrip("# "))]
