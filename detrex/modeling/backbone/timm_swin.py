"""Shifted windows over maps of any size, in timm's Swin transformers (arXiv:2103.14030).

Windows that don't divide a map need padding. timm shifts the map and pads it then, so that rows
which went around the edge stay next to rows of the opposite edge, and the attention mask, which is
made for the padded map, doesn't part them. Padded first and shifted then, as the published
detectors have it, the mask fits.
"""

from __future__ import annotations

from collections.abc import Callable

from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["pad_before_shifting"]


def _attend_padded(
    attend: Callable[[Tensor], Tensor], x: Tensor, window_size: tuple[int, int]
) -> Tensor:
    """``attend`` on whole windows: (B, H, W, C) -> (B, H, W, C)."""
    height, width = x.shape[1:3]
    padding = (0, 0, 0, -width % window_size[1], 0, -height % window_size[0])
    return attend(F.pad(x, padding))[:, :height, :width]


class _SwinBlock(SwinTransformerBlock):
    def _attn(self, x: Tensor) -> Tensor:
        return _attend_padded(super()._attn, x, self.window_size)


class _SwinV2Block(SwinTransformerV2Block):
    def _attn(self, x: Tensor) -> Tensor:
        return _attend_padded(super()._attn, x, self.window_size)


_CORRECTED: dict[type, type] = {
    SwinTransformerBlock: _SwinBlock,
    SwinTransformerV2Block: _SwinV2Block,
}


def pad_before_shifting(network: nn.Module) -> None:
    """Correct the blocks of a Swin transformer in place; other networks stay as they are."""
    for module in network.modules():
        if type(module) in _CORRECTED:
            module.__class__ = _CORRECTED[type(module)]
