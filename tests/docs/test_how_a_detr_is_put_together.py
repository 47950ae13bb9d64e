"""The page's figures are those of the files it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how_a_detr_is_put_together.md").read_text()
LINES = re.findall(r"^\| `(configs/\S+)`[^|]*\| (\d+) \|$", PAGE, re.MULTILINE)
RECIPES = re.findall(r"^\| `((?!configs)\w+/\S+\.py)` \| ([\d.]+|-)", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("path", "lines"), LINES)
def test_lines_of_model_configs(path, lines):
    assert len((ROOT / path).read_text().splitlines()) == int(lines)


@pytest.mark.parametrize(("recipe", "published"), RECIPES)
def test_published_figures_are_those_of_the_recipes(recipe, published):
    docstring = (ROOT / "configs" / recipe).read_text().split('"""')[1]
    assert published == "-" or f"{published} AP" in docstring or f"{published} to" in docstring


def test_the_page_was_read():
    assert len(LINES) > 9
    assert len(RECIPES) > 25


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links(link):
    assert link.startswith("https://") or (ROOT / "docs" / link).exists()
