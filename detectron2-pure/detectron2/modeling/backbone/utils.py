"""Parts of plain and windowed transformers: patches, windows, positions.

Letters: B batch, C channels, H height, W width, N windows, S side of a window.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Mlp",
    "PatchEmbed",
    "add_decomposed_rel_pos",
    "get_abs_pos",
    "get_rel_pos",
    "window_partition",
    "window_unpartition",
]


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut maps into windows, after padding them with zeros at the right and the bottom.

    Args:
        x: (B, H, W, C).
        window_size: S.

    Returns:
        windows (B * N, S, S, C), those of an image row by row, and the padded (height, width).
    """
    x = pad_to_multiple(x, window_size)
    batch, height, width, channels = x.shape
    rows, columns = height // window_size, width // window_size
    windows = x.reshape(batch, rows, window_size, columns, window_size, channels).transpose(2, 3)
    shape = (batch * rows * columns, window_size, window_size, channels)
    return windows.reshape(shape), (height, width)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zeros at the right and the bottom of (B, H, W, C), until ``multiple`` divides both sides."""
    bottom, right = -x.shape[1] % multiple, -x.shape[2] % multiple
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


def window_unpartition(
    windows: Tensor, window_size: int, pad_hw: tuple[int, int], hw: tuple[int, int]
) -> Tensor:
    """Put windows together again and cut the padding off.

    Args:
        windows: (B * N, S, S, C), as of :func:`window_partition`.
        window_size: S.
        pad_hw: height and width that the windows cover.
        hw: H and W, without the padding.

    Returns:
        (B, H, W, C).
    """
    rows, columns = pad_hw[0] // window_size, pad_hw[1] // window_size
    batch = windows.shape[0] // (rows * columns)
    x = windows.reshape(batch, rows, columns, window_size, window_size, windows.shape[-1])
    x = x.transpose(2, 3).reshape(batch, *pad_hw, windows.shape[-1])
    return x[:, : hw[0], : hw[1]]


def get_rel_pos(q_size: int, k_size: int, rel_pos: Tensor) -> Tensor:
    """The embedding of each pair of a query and a key along one axis.

    The shorter of the two axes is stretched to the longer one. A table made for other sizes is
    interpolated linearly.

    Args:
        q_size: number of queries along the axis.
        k_size: number of keys.
        rel_pos: (L, C), a row for each distance from the most negative to the most positive one.

    Returns:
        (q_size, k_size, C).
    """
    distances = 2 * max(q_size, k_size) - 1
    table = rel_pos
    if len(table) != distances:
        table = F.interpolate(table.t()[None], size=distances, mode="linear")[0].t()
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    queries = torch.arange(q_size, device=rel_pos.device) * q_step
    keys = torch.arange(k_size, device=rel_pos.device) * k_step
    distance = queries[:, None] - keys + (k_size - 1) * k_step
    return table[distance.long()]


def decomposed_rel_pos(
    q: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> Tensor:
    """Logits by relative position, the sum of one by rows and one by columns (arXiv:2112.01526).

    Args:
        q: queries (B, q_height * q_width, C).
        rel_pos_h, rel_pos_w: tables (L, C) as of :func:`get_rel_pos`.
        q_size, k_size: height and width of the maps of queries and of keys.

    Returns:
        (B, q_height * q_width, k_height * k_width).
    """
    by_row = get_rel_pos(q_size[0], k_size[0], rel_pos_h)
    by_column = get_rel_pos(q_size[1], k_size[1], rel_pos_w)
    grid = q.unflatten(1, q_size)
    rows = torch.einsum("bhwc,hkc->bhwk", grid, by_row)
    columns = torch.einsum("bhwc,wkc->bhwk", grid, by_column)
    return (rows[..., None] + columns[..., None, :]).flatten(3).flatten(1, 2)


def add_decomposed_rel_pos(
    attn: Tensor,
    q: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> Tensor:
    """``attn`` (B, q_height * q_width, k_height * k_width) and the logits by relative position.

    Other arguments are those of :func:`decomposed_rel_pos`.
    """
    return attn + decomposed_rel_pos(q, rel_pos_h, rel_pos_w, q_size, k_size)


def get_abs_pos(abs_pos: Tensor, has_cls_token: bool, hw: tuple[int, int]) -> Tensor:
    """A table of learned positions, resized bicubically to a map.

    Args:
        abs_pos: (1, n, C) for a square of n positions, or of n - 1 after one of a class token.
        has_cls_token: whether the first position is the class token's, which a map doesn't have.
        hw: height and width of the map.

    Returns:
        (1, H, W, C).

    Raises:
        ValueError: the positions make no square.
    """
    table = abs_pos[:, 1:] if has_cls_token else abs_pos
    side = round(table.shape[1] ** 0.5)
    if side * side != table.shape[1]:
        raise ValueError(
            f"{table.shape[1]} positions make no square; has_cls_token={has_cls_token} says "
            "whether the table starts with that of a class token."
        )
    grid = table.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if (side, side) != tuple(hw):
        grid = F.interpolate(grid, size=hw, mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Patches of images as tokens, by a convolution named ``proj``.

    Args:
        kernel_size, stride, padding: of the convolution, (height, width) each.
        in_chans: channels of the images.
        embed_dim: channels of the tokens.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int] = (16, 16),
        stride: tuple[int, int] = (16, 16),
        padding: tuple[int, int] = (0, 0),
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, height, width) -> (B, H, W, embed_dim)."""
        return self.proj(x).permute(0, 2, 3, 1)


class Mlp(nn.Module):
    """Two linear layers, named ``fc1`` and ``fc2``, with an activation between them.

    Args:
        channels: of input and output.
        hidden: between the layers.
        act_layer: makes the activation.
        drop: probability of dropout behind each layer.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> (..., channels)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


def init_weights(module: nn.Module) -> None:
    """Start linear layers and norms as transformers of images do; for ``Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        if module.weight is not None:
            nn.init.ones_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
