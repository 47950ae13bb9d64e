"""Windows and positions, by their definitions."""

import pytest
import torch
from detectron2.modeling.backbone.utils import (
    PatchEmbed,
    add_decomposed_rel_pos,
    get_abs_pos,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch.testing import assert_close


def test_windows():
    x = torch.arange(1.0, 2 * 5 * 7 * 3 + 1).view(2, 5, 7, 3)
    windows, padded = window_partition(x, 4)
    assert padded == (8, 8)
    assert windows.shape == (8, 4, 4, 3)
    assert torch.equal(windows[0], x[0, :4, :4])
    assert torch.equal(windows[5, :, :3], x[1, :4, 4:])  # the second image's upper right one
    assert not windows[5, :, 3].any() and not windows[2, 1:].any()
    assert torch.equal(window_unpartition(windows, 4, padded, (5, 7)), x)


def test_relative_positions():
    table = torch.arange(7.0)[:, None]
    assert get_rel_pos(4, 4, table)[..., 0].tolist() == [
        [3.0, 2.0, 1.0, 0.0],
        [4.0, 3.0, 2.0, 1.0],
        [5.0, 4.0, 3.0, 2.0],
        [6.0, 5.0, 4.0, 3.0],
    ]
    # half as many queries lie twice as far apart, and the same the other way round
    assert get_rel_pos(2, 4, table)[..., 0].tolist() == [[3.0, 2.0, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0]]
    assert get_rel_pos(4, 2, table)[..., 0].tolist() == [
        [2.0, 0.0],
        [3.0, 1.0],
        [4.0, 2.0],
        [5.0, 3.0],
    ]
    wider = get_rel_pos(7, 7, table)[..., 0]  # 13 distances for the table's 7
    assert_close(wider.diagonal(), torch.full((7,), 3.0))
    assert_close(wider[:, 0] + wider[0], torch.full((7,), 6.0))
    assert (wider[:, 0].diff() > 0).all()


def test_logits_by_relative_position():
    torch.manual_seed(0)
    q_size, k_size = (2, 3), (4, 3)
    logits, q = torch.randn(2, 6, 12), torch.randn(2, 6, 5)
    rows, columns = torch.randn(7, 5), torch.randn(5, 5)
    found = add_decomposed_rel_pos(logits, q, rows, columns, q_size, k_size)
    by_row, by_column = get_rel_pos(2, 4, rows), get_rel_pos(3, 3, columns)
    for i in range(6):
        for j in range(12):
            relative = by_row[i // 3, j // 3] + by_column[i % 3, j % 3]
            assert_close(found[:, i, j], logits[:, i, j] + q[:, i] @ relative)


def test_absolute_positions():
    row = torch.arange(4.0)
    grid = torch.stack(torch.meshgrid(row, row, indexing="ij"), dim=-1)[None]
    table = torch.cat([torch.full((1, 1, 2), 100.0), grid.flatten(1, 2)], dim=1)
    assert torch.equal(get_abs_pos(table, True, (4, 4)), grid)
    assert torch.equal(get_abs_pos(table[:, 1:], False, (4, 4)), grid)
    taller = get_abs_pos(table, True, (8, 4))
    assert (taller[0, :, 0, 0].diff() > 0).all()
    assert_close(taller[..., 1], grid[..., 1].repeat_interleave(2, dim=1))
    with pytest.raises(ValueError, match="17 positions make no square; has_cls_token=False"):
        get_abs_pos(table, False, (4, 4))


def test_patches():
    embed = PatchEmbed(kernel_size=(3, 2), stride=(2, 2), padding=(1, 0), in_chans=2, embed_dim=4)
    assert embed(torch.randn(1, 2, 8, 10)).shape == (1, 4, 5, 4)
    assert embed.proj.weight.shape == (4, 2, 3, 2)
