"""Rotary positions on maps, and what EVA-02 shares with EVA, by the public detrex's names.

Rotary positions turn pairs of a query's or key's channels by angles that grow with its place, so
that their product depends on the distance alone (arXiv:2104.09864). On a map, the first half of the
channels follows the row and the second half the column (EVA-02, arXiv:2303.11331).

Letters: B batch, C channels, H height, W width, N = H * W places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.modeling.backbone.utils import (
    PatchEmbed,
    add_decomposed_rel_pos,
    get_abs_pos,
    get_rel_pos,
    window_partition,
    window_unpartition,
)

__all__ = [
    "PatchEmbed",
    "VisionRotaryEmbedding",
    "VisionRotaryEmbeddingFast",
    "add_decomposed_rel_pos",
    "broadcat",
    "get_abs_pos",
    "get_rel_pos",
    "rotate_half",
    "window_partition",
    "window_unpartition",
]


def broadcat(tensors: Sequence[Tensor], dim: int = -1) -> Tensor:
    """Concatenate along ``dim``, broadcasting all other axes."""
    last = [t.movedim(dim, -1) for t in tensors]
    shape = torch.broadcast_shapes(*(t.shape[:-1] for t in last))
    return torch.cat([t.expand(*shape, -1) for t in last], dim=-1).movedim(-1, dim)


def rotate_half(x: Tensor) -> Tensor:
    """Turn each pair of neighboring channels by a right angle: (a, b) -> (-b, a)."""
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


class VisionRotaryEmbedding(nn.Module):
    """Turn channels of a map (..., H, W, C) by angles that grow with row and column.

    ``freqs_cos`` and ``freqs_sin`` are the tables of a square map of ``ft_seq_len`` places a side.
    Maps of other sizes get tables of their own: those of the map's place in the top left corner
    of that square, or of the smallest square that holds it. So an image has the same positions
    with and without the padding that makes it a square.

    Args:
        dim: channels that turn with the row, and again as many with the column.
        pt_seq_len: places a side in pretraining.
        ft_seq_len: places a side now; they are spread over those of pretraining. By default
            those of pretraining, and then one place is one step on maps of any size.
        custom_freqs: (dim // 2,) angles per step, instead of the following.
        freqs_for: ``"lang"`` for powers of ``1 / theta``, as transformers on text have them;
            ``"pixel"`` for even ones from pi to ``pi * max_freq / 2``; ``"constant"`` for
            ``num_freqs`` ones.

    Raises:
        ValueError: for another ``freqs_for``.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(
        self,
        dim: int,
        pt_seq_len: int,
        ft_seq_len: int | None = None,
        custom_freqs: Tensor | None = None,
        freqs_for: str = "lang",
        theta: float = 10000,
        max_freq: float = 10,
        num_freqs: int = 1,
    ) -> None:
        super().__init__()
        self.pt_seq_len = pt_seq_len
        self.ft_seq_len = ft_seq_len
        self.side = pt_seq_len if ft_seq_len is None else ft_seq_len
        # Numbers rather than a tensor: single precision whatever that of the model is.
        if custom_freqs is not None:
            self._freqs = custom_freqs.tolist()
        elif freqs_for == "lang":
            self._freqs = [theta ** (-i / dim) for i in range(0, dim // 2 * 2, 2)]
        elif freqs_for == "pixel":
            step = (max_freq / 2 - 1) / max(dim // 2 - 1, 1)
            self._freqs = [math.pi * (1 + step * i) for i in range(dim // 2)]
        elif freqs_for == "constant":
            self._freqs = [1.0] * num_freqs
        else:
            raise ValueError(
                f'freqs_for is "lang", "pixel" or "constant", not {freqs_for!r}; other '
                "frequencies can be given as custom_freqs."
            )
        cos, sin = self.tables(self.side, self.side)
        self.register_buffer("freqs_cos", cos)
        self.register_buffer("freqs_sin", sin)

    def tables(
        self, height: int, width: int, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles on a map: (H, W, C) each, in single precision."""
        side = self.side
        if self.ft_seq_len is not None:
            side = max(side, height, width)
        freqs = torch.tensor(self._freqs, device=device).repeat_interleave(2)
        rows = torch.arange(height, device=device) / side * self.pt_seq_len
        columns = torch.arange(width, device=device) / side * self.pt_seq_len
        angles = broadcat([rows[:, None, None] * freqs, columns[None, :, None] * freqs])
        return angles.cos(), angles.sin()

    def forward(self, t: Tensor, start_index: int = 0) -> Tensor:
        """Turn the channels from ``start_index`` on; those before and after stay.

        Raises:
            ValueError: if ``t`` has fewer channels than are turned.
        """
        height, width, channels = t.shape[-3:]
        cos, sin = self.freqs_cos, self.freqs_sin
        if (height, width) != (self.side, self.side):
            cos, sin = self.tables(height, width, t.device)
        end = start_index + cos.shape[-1]
        if end > channels:
            raise ValueError(
                f"Rotary positions turn the channels {start_index} to {end}, but the map has "
                f"{channels}; dim is a quarter of the channels, times two."
            )
        before, turned, after = t.tensor_split((start_index, end), dim=-1)
        return torch.cat([before, _rotate(turned, cos, sin), after], dim=-1)


class VisionRotaryEmbeddingFast(VisionRotaryEmbedding):
    """The same on a map as a sequence, row by row: (..., N, C) -> (..., N, C).

    All channels turn, so C is twice ``dim``. Arguments are :class:`VisionRotaryEmbedding`'s.
    """

    def tables(
        self, height: int, width: int, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles on a map: (N, C) each, in single precision."""
        cos, sin = super().tables(height, width, device)
        return cos.flatten(0, 1), sin.flatten(0, 1)

    def forward(  # type: ignore[override]
        self, t: Tensor, hw: tuple[int, int] | None = None
    ) -> Tensor:
        """Turn the channels.

        Args:
            t: (..., N, C).
            hw: H and W of the map, by default those of the tables.

        Raises:
            ValueError: if the map has another number of places.
        """
        height, width = hw or (self.side, self.side)
        if t.shape[-2] != height * width:
            raise ValueError(
                f"A sequence of {t.shape[-2]} places is no map of {height} x {width}; give its "
                "height and width as hw."
            )
        if (height, width) == (self.side, self.side):
            return _rotate(t, self.freqs_cos, self.freqs_sin)
        return _rotate(t, *self.tables(height, width, t.device))


def _rotate(t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return (t * cos + rotate_half(t) * sin).to(t.dtype)
