"""What networks of stages share whose parts have the names that their authors gave them.

:class:`~detrex.modeling.backbone.TimmBackbone` has the same networks, and hundreds more, under
timm's names. These here are for code and weights that were written for the public detrex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.layers import LayerNorm2d, trunc_normal_
from torch import Tensor, nn

from detrex.modeling.backbone.pixels import IMAGENET_RGB, PixelProperties

__all__ = ["StageBackbone", "drop_path_rates"]


def drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """How often each block of each stage is left out: from 0 up to ``last``, evenly."""
    rates = torch.linspace(0, last, sum(depths), device="cpu")
    return [stage.tolist() for stage in rates.split(list(depths))]


class StageBackbone(PixelProperties, Backbone):
    """Stages that halve the map, the first of stride 4: (B, C, H, W) -> {name: (B, C_i, H_i, W_i)}.

    Level ``p{i}`` is what stage ``i`` gives, normalized by ``norm{i}``. A subclass builds its parts
    and calls :meth:`_set_levels`.
    """

    def _set_levels(
        self,
        parts: Sequence[Sequence[nn.Module]],
        widths: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int,
        in_chans: int,
        eps: float,
    ) -> None:
        """Say what the network returns and what of it is trained, and give weights their start.

        Args:
            parts: the modules of the stem and then those of each stage.
            widths: channels of each stage.
            out_indices: stages to return, counted from 0.
            frozen_stages: -1 freezes nothing, 0 and 1 the stem, k >= 2 the first k - 1 stages too.
            in_chans: channels of the images.
            eps: what the norms of the levels add to the variance.

        Raises:
            ValueError: a stage that does not exist.
        """
        count = len(widths)
        wrong = [index for index in out_indices if not 0 <= index < count]
        if wrong or not out_indices:
            raise ValueError(
                f"out_indices names stages from 0 to {count - 1}, not {list(out_indices)}."
            )
        if not -1 <= frozen_stages <= count + 1:
            raise ValueError(f"frozen_stages is -1 to {count + 1}, not {frozen_stages}.")
        self.out_indices = sorted(set(out_indices))
        self.frozen_stages = frozen_stages
        self._widths = {f"p{index}": widths[index] for index in self.out_indices}
        self._out_features = list(self._widths)
        self._pixels = IMAGENET_RGB.for_channels(in_chans)
        self.apply(self._init_weights)
        for index in self.out_indices:
            self.add_module(f"norm{index}", LayerNorm2d(widths[index], eps=eps))
        self._frozen = [m for part in parts[: max(frozen_stages, 1)] for m in part]
        if frozen_stages < 0:
            self._frozen = []
        # no parameter may wait for a gradient that never comes
        unused = [m for part in parts[self.out_indices[-1] + 2 :] for m in part]
        for module in unused:
            module.requires_grad_(False)
        self._freeze_stages()

    def _init_weights(self, module: nn.Module) -> None:
        """Matrices and kernels start from a truncated normal distribution, biases at 0."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def _freeze_stages(self) -> None:
        """Frozen stages have no gradient, and no random drops in training."""
        for module in self._frozen:
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> StageBackbone:
        """Switch between training and evaluation, which frozen stages are always in."""
        super().train(mode)
        self._freeze_stages()
        return self

    @property
    def size_divisibility(self) -> int:
        """What height and width are padded to a multiple of, so that all levels agree."""
        return math.lcm(*(4 * 2**index for index in self.out_indices))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level."""
        strides = {f"p{index}": 4 * 2**index for index in self.out_indices}
        return {
            name: ShapeSpec(channels=c, stride=strides[name]) for name, c in self._widths.items()
        }

    def _normalized(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """The levels to return, of the maps of all stages up to the last of them."""
        return {
            f"p{index}": getattr(self, f"norm{index}")(maps[index]).contiguous()
            for index in self.out_indices
        }
