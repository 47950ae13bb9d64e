"""How fast each parameter of a detector learns: what is pretrained slower than what is new."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

__all__ = ["RateFactors"]

_BACKBONE = re.compile(r"(?:^|\.)backbone\.(.+)")

# What a backbone gets on top of the pretrained network: TimmBackbone's pyramid and norms, and the
# pyramid of detectron2.
_NEW = re.compile(r"(?:pyramid|norms|simfp_\d)\.")

# The block of a network that a parameter is in, with the stage around it if there are stages:
# ``blocks.3``, ``stages_0.blocks.2``, ``layers_1.blocks.0``, ``blocks.4.1``, ``res3.0``,
# ``layer1.0``.
_LAYER = re.compile(
    r"(?:^|[._])(?:layers?|stages?|blocks?|features|res)[._]?(\d+)(?:\.(?:blocks\.)?(\d+)(?=\.))?"
)
_ATTENTION = re.compile(r"\.\w*attn\w*\.")

# Layer-wise decay of plain transformers by their depth, as published: ViT-B 0.7, ViT-L 0.8, ViT-H
# 0.9 (ViTDet, arXiv:2203.16527), also for EVA with 40 blocks (arXiv:2211.07636).
_DECAY_BY_DEPTH = ((12, 0.7), (24, 0.8))
_DECAY_OF_DEEPER = 0.9


class RateFactors:
    """Factors on the learning rate by a parameter's name, for ``lr_factor_func`` of detectron2's
    ``get_default_optimizer_params``.

    A pretrained backbone learns at a fraction of the rate, what the detector adds to it (a pyramid,
    norms of levels) and the detector itself at the full rate. The layers of a plain transformer
    learn the slower the further they are from its output: the last block at ``decay`` times the
    rate, the one before at ``decay ** 2``, the patch embedding and positions last.

    Args:
        model: the detector; layers are counted in its parameters' names. Without it no
            layer-wise decay is possible, and ``"auto"`` means none.
        backbone: factor of a backbone that has no layer-wise decay.
        layer_decay: decay per layer of the backbone, of any network with blocks or stages; None
            for none. ``"auto"`` is the published one for a plain transformer of the backbone's
            depth, and none for all other networks.
        parts: factors of other parameters, by a part of their names. Deformable-DETR's own code
            has ``{"sampling_offsets": 0.1, "reference_points": 0.1}``.

    Raises:
        ValueError: ``layer_decay`` is given and there are no layers to apply it to.

    Example:
        >>> factors = RateFactors(backbone=0.1)
        >>> factors("backbone.res2.0.conv1.weight"), factors("neck.convs.0.conv.weight")
        (0.1, 1.0)
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        backbone: float = 0.1,
        layer_decay: float | str | None = "auto",
        parts: Mapping[str, float] | None = None,
    ) -> None:
        names = [] if model is None else [name for name, _ in model.named_parameters()]
        self.backbone = backbone
        self.parts = dict(parts or {})
        self._layers, self._depth = _layers(filter(None, map(_pretrained, names)))
        self.layer_decay = self._decay(layer_decay)

    def __call__(self, name: str) -> float:
        """The factor of the parameter called ``name`` in the whole model."""
        for part, factor in self.parts.items():
            if part in name:
                return factor
        inner = _pretrained(name)
        if inner is None:
            return 1.0
        if self.layer_decay is None:
            return self.backbone
        return self.layer_decay ** (self._depth + 1 - self._layers.get(inner, self._depth + 1))

    def _decay(self, asked: float | str | None) -> float | None:
        if asked == "auto":
            plain = all(len(key) == 1 for key in map(_key, self._layers) if key is not None)
            if not (plain and self._depth and any(map(_ATTENTION.search, self._layers))):
                return None
            known = (rate for depth, rate in _DECAY_BY_DEPTH if self._depth <= depth)
            return next(known, _DECAY_OF_DEEPER)
        if isinstance(asked, str):
            raise ValueError(f'layer_decay is a number, None or "auto", not {asked!r}.')
        if asked is not None and not self._depth:
            raise ValueError(
                f"layer_decay={asked} needs the layers of the backbone, but no parameter of the "
                "model is in a numbered block or stage of one; say layer_decay=None."
            )
        return asked


def _pretrained(name: str) -> str | None:
    """The name within the backbone, for parameters of its pretrained part."""
    match = _BACKBONE.search(name)
    return None if match is None or _NEW.match(match[1]) else match[1]


def _key(name: str) -> tuple[int, ...] | None:
    """(block,) or (stage, block) or (stage,), for a parameter of a layer."""
    match = _LAYER.search(name)
    return None if match is None else tuple(int(i) for i in match.groups() if i is not None)


def _layers(names: Iterable[str]) -> tuple[dict[str, int], int]:
    """Of parameters in the order of the network: 0 before the first layer, 1 to n, n + 1 after;
    and n."""
    keys = {name: _key(name) for name in names}
    known = {key for key in keys.values() if key is not None}
    staged = any(len(key) == 2 for key in known)
    # what is at the beginning of a stage, like a downsampling, belongs to its first block
    full = {key: key if len(key) == 2 or not staged else (*key, 0) for key in known}
    rank = {key: i for i, key in enumerate(sorted(set(full.values())), start=1)}
    layers, begun = {}, False
    for name, key in keys.items():
        begun = begun or key is not None
        outside = len(rank) + 1 if begun else 0
        layers[name] = outside if key is None else rank[full[key]]
    return layers, len(rank)
