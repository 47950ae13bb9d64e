"""Canvases, masks, and levels of several canvases in one batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detrex.modeling.levels import (
    Levels,
    any_padding,
    canvas_size,
    image_levels,
    merge_levels,
    pad,
    padding_mask,
    tensor_levels,
    valid_cells,
)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), (61, 75)),
        ((1, {}), (61, 75)),
        ((32, None), (64, 96)),
        ((32, {"square_size": 128}), (128, 128)),
        ((0, {"size_divisibility": 16}), (64, 80)),
        ((32, {"square_size": 0, "size_divisibility": 0}), (64, 96)),
    ],
)
def test_canvas(rules, expected):
    assert canvas_size(61, 75, *rules) == expected


def test_images_that_exceed_the_square():
    with pytest.raises(ValueError, match="61 x 75 pixels exceed 64 x 64"):
        canvas_size(61, 75, 0, {"square_size": 64})


def test_valid_cells_show_a_part_of_the_image():
    sizes, canvas, level = [(61, 75), (1, 96), (64, 33)], (64, 96), (8, 12)
    expected = [
        [sum(c * total / cells < side for c in range(cells))  # cells whose start is in the image
         for side, total, cells in zip(size, canvas, level, strict=True)]
        for size in sizes
    ]  # fmt: skip
    found = valid_cells(torch.tensor(sizes), canvas, level)
    assert found.tolist() == expected
    mask = padding_mask(found, torch.zeros(3, 1, *level))
    for (rows, columns), own in zip(expected, mask, strict=True):
        assert not own[:rows, :columns].any()
        assert own[rows:].all() and own[:, columns:].all()
    maps = [torch.zeros(1, 1, *level)]
    for size in ((64, 96), (57, 89)):  # the last row and column still show some of it
        assert not any_padding([size], torch.zeros(1, 3, *canvas), maps)
    for size in ((56, 96), (64, 88)):
        assert any_padding([size, canvas], torch.zeros(1, 3, *canvas), maps)


class Square(nn.Module):
    """A backbone that takes squares only, and has no divisibility."""

    size_divisibility = 0
    padding_constraints = {"square_size": 64}

    def forward(self, x):
        return {"res5": x[:, :, ::8, ::8]}


def test_a_square_canvas_is_padded():
    neck = lambda features: list(features.values())  # noqa: E731
    levels, sizes = tensor_levels(Square(), neck, torch.ones(2, 3, 40, 48), None)
    assert levels.padded and sizes.tolist() == [[40, 48]] * 2
    expected = image_levels(Square(), neck, list(torch.ones(2, 3, 40, 48)), one_canvas=False)
    assert expected.padded
    assert torch.equal(levels.masks[0], expected.masks[0])


def part(sizes: list[tuple[int, int]], value: float, padded: bool = False) -> Levels:
    maps = [torch.full((2, 3, *size), value) for size in sizes]
    masks = [torch.zeros(2, *size, dtype=torch.bool) for size in sizes]
    return Levels(maps, masks, padded=padded, pixels=[pad(maps[0], 9, 9)])


def test_levels_of_several_canvases():
    one, other = part([(2, 3), (1, 2)], 1.0), part([(3, 2), (2, 1)], 2.0)
    merged = merge_levels([one, other], [[0, 3], [2, 1]])
    assert merged.padded
    assert [m.shape for m in merged.maps] == [(4, 3, 3, 3), (4, 3, 2, 2)]
    sources = [(1.0, one), (2.0, other), (2.0, other), (1.0, one)]
    for i, (level, mask) in enumerate(zip(merged.maps, merged.masks, strict=True)):
        for image, (value, source) in enumerate(sources):
            own = source.maps[i].shape[-2:]
            assert_close(level[image], pad(torch.full((3, *own), value), *level.shape[-2:]))
            assert torch.equal(~mask[image], pad(torch.ones(own), *mask.shape[-2:]).bool())
    assert [p.shape for p in merged.pixels] == [(4, 3, 9, 9)]


@pytest.mark.parametrize("padded", [False, True])
def test_canvases_of_one_size_need_no_padding(padded):
    sizes = [(2, 3), (1, 2)]
    merged = merge_levels([part(sizes, 1.0), part(sizes, 2.0, padded)], [[1, 2], [0, 3]])
    assert merged.padded == padded
    assert merged.maps[0][:, 0, 0, 0].tolist() == [2.0, 1.0, 1.0, 2.0]
    assert merged.maps[1].shape == (4, 3, 1, 2)
