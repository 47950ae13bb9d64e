"""ViTDet: windows, positions and the pyramid's fourth map."""

from __future__ import annotations

import torch

from detrex.modeling.backbone import ViTDet
from detrex.modeling.backbone.vitdet import PositionTable


def small(**arguments) -> ViTDet:
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 2, "global_attn_indexes": (2,)}
    return ViTDet(pyramid_channels=16, window_size=3, **sizes, **arguments)


def test_contract(check_contract):
    check_contract(small())


def test_gradient_checkpointing_computes_the_same():
    torch.manual_seed(0)
    plain, economical = small(), small(grad_checkpointing=True)
    economical.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 128)
    gradients = []
    for backbone in (plain, economical):
        sum(y.square().sum() for y in backbone(x).values()).backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_positions_follow_the_size_of_the_map():
    table = PositionTable(side=4, channels=3)
    row = torch.arange(4.0)
    grid = torch.stack([*torch.meshgrid(row, row, indexing="ij"), torch.zeros(4, 4)], dim=-1)
    with torch.no_grad():
        table.pos_embed[0, 0] = 100.0  # the class token's, which no cell has
        table.pos_embed[0, 1:] = grid.flatten(0, 1)
        same = table(torch.zeros(1, 4, 4, 3))[0]
        finer = table(torch.zeros(1, 8, 4, 3))[0]
    assert torch.equal(same, grid)
    # rows run from the first to the last at half the step; columns are those of before
    assert finer[:, 0, 0].diff().min() > 0
    torch.testing.assert_close(finer[:, 0, 0] + finer[:, 0, 0].flip(0), torch.full((8,), 3.0))
    torch.testing.assert_close(finer[4, :, 1], row)


def test_blocks_of_windows_see_no_further():
    """With no block that attends to all, a change stays within its window of 3 x 3 patches."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 2, "global_attn_indexes": ()}
    backbone = ViTDet(pyramid_channels=16, window_size=3, **sizes).eval()
    x = torch.randn(1, 3, 64, 128)
    changed = x.clone()
    changed[..., :16, :16] += torch.randn(3, 16, 16)
    with torch.no_grad():
        maps = [backbone.timm_model(image)[0] for image in (x, changed)]
    moved = (maps[0] - maps[1]).abs().amax(1)[0] > 1e-6
    assert moved[:3, :3].all()
    assert not moved[3:].any() and not moved[:, 3:].any()
