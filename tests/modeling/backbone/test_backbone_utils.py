"""Windows and positions by the public detrex's names, against plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from detrex.modeling.backbone import eva_02_utils, utils
from detrex.modeling.backbone.eva_02_utils import (
    VisionRotaryEmbedding,
    VisionRotaryEmbeddingFast,
    broadcat,
    rotate_half,
)
from detrex.modeling.backbone.utils import (
    PatchEmbed,
    add_decomposed_rel_pos,
    get_abs_pos,
    get_rel_pos,
    window_partition,
    window_unpartition,
)


def test_both_modules_have_the_same_parts():
    for name in utils.__all__:
        assert getattr(eva_02_utils, name) is getattr(utils, name)


def test_patches_are_linear_in_their_pixels():
    embed = PatchEmbed((2, 3), (2, 3), in_chans=1, embed_dim=4)
    x = torch.randn(1, 1, 4, 9)
    patch = x[0, 0, 2:4, 3:6].flatten()
    expected = embed.proj.weight.flatten(1) @ patch + embed.proj.bias
    assert embed(x).shape == (1, 2, 3, 4)
    torch.testing.assert_close(embed(x)[0, 1, 1], expected)


def test_windows_row_by_row_and_back():
    x = torch.arange(2 * 4 * 5, dtype=torch.float32).view(2, 4, 5, 1) + 1
    windows, padded = window_partition(x, 3)
    assert padded == (6, 6) and windows.shape == (8, 3, 3, 1)
    assert torch.equal(windows[5, :, :2], x[1, :3, 3:])  # the second image's second window
    assert (windows[5, :, 2] == 0).all() and (windows[2, 1:] == 0).all()
    assert torch.equal(window_unpartition(windows, 3, padded, (4, 5)), x)


@pytest.mark.parametrize("q_size, k_size", [(3, 3), (2, 4), (4, 2)])
def test_distances_along_an_axis(q_size, k_size):
    """The smaller grid is spread over the larger one; distances count from the table's middle."""
    longest = max(q_size, k_size)
    table = torch.arange(1.0 - longest, longest)[:, None]
    found = get_rel_pos(q_size, k_size, table)[..., 0]
    q_step, k_step = longest / q_size, longest / k_size
    for i in range(q_size):
        for j in range(k_size):
            shift = (k_size - 1) * k_step - (longest - 1)  # zero when the keys' grid is not spread
            assert found[i, j] == i * q_step - j * k_step + shift


def test_a_table_is_stretched_linearly():
    table = torch.tensor([[0.0, 9.0], [2.0, 5.0], [4.0, 1.0]])
    found = get_rel_pos(3, 3, table)
    rows = torch.stack([found[0, 2], found[0, 1], found[0, 0], found[1, 0], found[2, 0]])
    # five cells over three: their centers are at 0.1, 0.3 ... 0.9 of the table's width
    places = (torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]) * 3 - 0.5).clamp(0, 2)
    torch.testing.assert_close(rows, torch.stack([2 * places, 9 - 4 * places], -1))


@pytest.mark.parametrize("before, after", [(4, 6), (8, 21), (40, 48), (6, 4)])
def test_beit_keeps_near_distances_near(before, after):
    """A table that is a cubic in the distances of its rows becomes that cubic at all distances."""
    # 1 + q + ... + q ** (before - 2) = after - 1, within BEiT's bounds
    roots = np.roots([*[1.0] * (before - 2), 1.0 - (after - 1)])
    q = float(np.clip(next(r.real for r in roots if abs(r.imag) < 1e-9 and r.real > 0), 1.01, 1.5))
    half = np.cumsum([q**i for i in range(before - 1)])
    rows = torch.from_numpy(np.concatenate([-half[::-1], [0], half]))

    def cubic(x):
        x = x / after
        return torch.stack([x**3 - 2 * x, 1 + x - 3 * x**2], -1)

    table = cubic(rows).requires_grad_()
    found = get_rel_pos(after, after, table, "beit")
    places = torch.arange(after, dtype=torch.float64)
    torch.testing.assert_close(found, cubic(places[:, None] - places), rtol=1e-6, atol=1e-6)
    found.sum().backward()
    assert (table.grad != 0).any(-1).all()


def test_tables_that_fit_stay_and_other_ways_are_refused():
    table = torch.randn(5, 2)
    for interp_type in ("vitdet", "beit"):
        assert torch.equal(get_rel_pos(3, 3, table, interp_type)[:, 0], table[2:])
    # three rows and one are too few for a cubic
    assert get_rel_pos(4, 4, torch.ones(3, 2), "beit") == pytest.approx(1.0)
    assert get_rel_pos(2, 2, torch.ones(1, 2), "beit") == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r'"vitdet" or "beit", not \'linear\'\.'):
        get_rel_pos(3, 3, table, "linear")


def test_relative_positions_are_added_to_logits():
    q, attn = torch.randn(2, 6, 4), torch.randn(2, 6, 6)
    rows, columns = torch.randn(3, 4), torch.randn(5, 4)
    found = add_decomposed_rel_pos(attn, q, rows, columns, (2, 3), (2, 3))
    for b in range(2):
        for i, (y, x) in enumerate((y, x) for y in range(2) for x in range(3)):
            for j, (v, u) in enumerate((v, u) for v in range(2) for u in range(3)):
                bias = q[b, i] @ rows[y - v + 1] + q[b, i] @ columns[x - u + 2]
                torch.testing.assert_close(found[b, i, j], attn[b, i, j] + bias)


def test_positions_without_those_of_a_class_token():
    table = torch.arange(10.0).view(1, 10, 1)
    assert torch.equal(get_abs_pos(table, True, (3, 3)).flatten(), torch.arange(1.0, 10.0))
    assert torch.equal(get_abs_pos(table[:, 1:], False, (3, 3)).flatten(), torch.arange(1.0, 10.0))
    wide = get_abs_pos(table, True, (3, 6))[0, ..., 0]
    assert wide.shape == (3, 6) and wide.diff(dim=1).min() > 0
    torch.testing.assert_close(wide.mean(1), torch.tensor([2.0, 5.0, 8.0]))
    with pytest.raises(ValueError, match="10 patches are not those of a square map"):
        get_abs_pos(table, False, (3, 3))


def test_concatenation_with_broadcasting():
    a, b = torch.randn(3, 1, 2), torch.randn(4, 5)
    joined = broadcat([a, b])
    assert joined.shape == (3, 4, 7)
    assert torch.equal(joined[1, 2], torch.cat([a[1, 0], b[2]]))
    assert broadcat([torch.ones(2, 3), torch.zeros(5, 1)], dim=0).shape == (7, 3)


def test_quarter_turns():
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert rotate_half(x).tolist() == [[-2.0, 1.0, -4.0, 3.0]]
    assert torch.equal(rotate_half(rotate_half(x)), -x)


def test_pairs_turn_by_row_and_by_column():
    """As complex numbers: channels 0 and 1 by the row, 4 and 5 by the column, at full speed."""
    rope = VisionRotaryEmbedding(dim=4, pt_seq_len=6, ft_seq_len=3).double()
    x = torch.randn(2, 3, 3, 8, dtype=torch.float64)
    found = torch.view_as_complex(rope(x).unflatten(-1, (4, 2)))
    pairs = torch.view_as_complex(x.unflatten(-1, (4, 2)))
    places = torch.arange(3.0, dtype=torch.float64) * 2  # three places for six of pretraining
    row, column = places[:, None], places[None, :]
    for channel, angle in enumerate((row, row / 100, column, column / 100)):
        expected = pairs[..., channel] * torch.exp(1j * angle)
        torch.testing.assert_close(found[..., channel], expected, rtol=1e-6, atol=1e-6)
    fast = VisionRotaryEmbeddingFast(dim=4, pt_seq_len=6, ft_seq_len=3).double()
    assert fast.freqs_cos.shape == (9, 8) and rope.freqs_cos.shape == (3, 3, 8)
    assert torch.equal(fast(x.flatten(1, 2)), rope(x).flatten(1, 2))


def test_products_depend_on_distances_alone():
    rope = VisionRotaryEmbeddingFast(dim=4, pt_seq_len=5)
    q, k = rope(torch.randn(8).expand(25, 8)), rope(torch.randn(8).expand(25, 8))
    products = (q @ k.T).view(5, 5, 5, 5)
    torch.testing.assert_close(products[:-1, 2:, :-1, 2:], products[1:, :-2, 1:, :-2])


def test_channels_around_stay():
    rope = VisionRotaryEmbedding(dim=2, pt_seq_len=3)
    x = torch.randn(3, 3, 9)
    y = rope(x, start_index=3)
    assert torch.equal(y[..., :3], x[..., :3]) and torch.equal(y[..., 7:], x[..., 7:])
    assert torch.equal(y[..., 3:7], rope(x[..., 3:7]))
    with pytest.raises(ValueError, match="channels 6 to 10, but the map has 9"):
        rope(x, start_index=6)


def test_steps_stay_or_are_spread():
    """Without ``ft_seq_len`` a place is a step on maps of any size."""
    own, spread = (VisionRotaryEmbeddingFast(2, 4, ft) for ft in (None, 4))
    angles = [rope(torch.tensor([1.0, 0, 1, 0]).expand(6, 4), (6, 1)) for rope in (own, spread)]
    turned = [torch.atan2(a[:, 1], a[:, 0]).remainder(2 * math.pi) for a in angles]
    torch.testing.assert_close(turned[0], torch.arange(6.0))
    torch.testing.assert_close(turned[1], torch.arange(6.0) * 4 / 6)
    with pytest.raises(ValueError, match="6 places is no map of 4 x 4"):
        own(torch.ones(6, 4))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"custom_freqs": torch.tensor([0.5, 0.25])}, [0.5, 0.25]),
        ({"theta": 100}, [1.0, 0.1]),
        ({"freqs_for": "pixel", "max_freq": 6}, [math.pi, 3 * math.pi]),
        ({"freqs_for": "constant", "num_freqs": 2}, [1.0, 1.0]),
    ],
)
def test_frequencies(arguments, expected):
    rope = VisionRotaryEmbedding(4, 2, **arguments)
    angles = torch.tensor(expected).repeat_interleave(2)
    torch.testing.assert_close(rope.freqs_cos[1, 0, :4], angles.cos())
    torch.testing.assert_close(rope.freqs_sin[0, 1, 4:], angles.sin(), rtol=1e-5, atol=1e-6)
    assert (rope.freqs_sin[0, 1, :4] == 0).all()


def test_other_frequencies_are_refused_and_precision_stays():
    with pytest.raises(ValueError, match=r"not 'audio'; .* custom_freqs\."):
        VisionRotaryEmbedding(4, 2, freqs_for="audio")
    rope = VisionRotaryEmbeddingFast(4, 16, 32)
    x = torch.randn(32 * 32, 8).bfloat16()
    assert rope(x).dtype == torch.bfloat16
    torch.testing.assert_close(rope(x), rope(x.float()).bfloat16())
