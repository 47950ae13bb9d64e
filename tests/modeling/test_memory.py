"""Tokens laid out as a sequence, and what can be asked of them."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from detrex.modeling.levels import Levels
from detrex.modeling.memory import flatten_levels


def levels(dtype: torch.dtype = torch.float32) -> Levels:
    """Two levels of two images, the second of which fills half of the width."""
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 4, 6, dtype=dtype), torch.randn(2, 5, 2, 3, dtype=dtype)]
    masks = [torch.zeros(2, *m.shape[-2:], dtype=torch.bool) for m in maps]
    masks[0][1, :, 3:] = True
    masks[1][1, :, 2:] = True
    return Levels(maps, masks, [m + 1 for m in maps], pixels=[torch.ones(2, 5, 8, 12)])


def test_tokens_can_be_split_into_maps_again():
    memory = flatten_levels(start := levels())
    for i, (level, padding) in enumerate(
        zip(memory.split(memory.tokens), memory.split(memory.padding), strict=True)
    ):
        assert torch.equal(level, start.maps[i].permute(0, 2, 3, 1))
        assert torch.equal(padding, start.masks[i])
    assert memory.pixels is start.pixels
    assert memory.level_of_tokens().tolist() == [0] * 24 + [1] * 6
    assert flatten_levels(start._replace(padded=False)).padding is None


def test_level_embeddings_are_added_to_positions():
    embed = torch.randn(2, 5)
    memory = flatten_levels(start := levels(), embed)
    for i, level in enumerate(memory.split(memory.pos)):
        assert_close(level, start.pos[i].permute(0, 2, 3, 1) + embed[i])


def test_centers_are_relative_to_the_image():
    memory = flatten_levels(levels(torch.float64))
    rows, columns = memory.row_and_column_centers()[0]
    assert_close(rows[1], torch.tensor([0.5, 1.5, 2.5, 3.5]).double() / 4, atol=1e-7, rtol=0)
    assert_close(columns[0], (torch.arange(6) + 0.5).double() / 6, atol=1e-7, rtol=0)
    assert_close(columns[1], (torch.arange(6) + 0.5).double() / 3, atol=1e-7, rtol=0)
    centers = memory.split(memory.cell_centers())[0]
    assert_close(centers[1, 2, 4], torch.stack((columns[1, 4], rows[1, 2])))
    # Whole columns of the level are image, so centers fall on the same cells of the padded level.
    padded = memory.split(memory.per_level(memory.cell_centers())[:, :, 0])[0]
    assert_close(padded[1, 2, 4], torch.tensor([4.5 / 6, 2.5 / 4]).double(), atol=1e-7, rtol=0)
