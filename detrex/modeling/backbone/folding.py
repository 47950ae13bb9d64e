"""Batch norms folded into the convolutions before them, for inference."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import detectron2.layers
import timm.layers
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from detrex.modeling.backbone.resnet_blocks import DeformConv
from detrex.modeling.backbone.timm_backbone import TimmBackbone
from detrex.modeling.backbone.torchvision_backbone import TorchvisionBackbone

__all__ = ["fold_frozen_norms"]

logger = logging.getLogger(__name__)

# By exact type: a subclass may do more than to normalize or to convolve.
_NORMS_WITH_ACT = (timm.layers.BatchNormAct2d, timm.layers.FrozenBatchNormAct2d)
_NORMS = (
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    FrozenBatchNorm2d,
    torchvision.ops.FrozenBatchNorm2d,
    *_NORMS_WITH_ACT,
)
_CONVS_WITH_NORM = (detectron2.layers.Conv2d, DeformConv)
_CONVS = (nn.Conv2d, timm.layers.Conv2dSame, *_CONVS_WITH_NORM)


def fold_frozen_norms(module: nn.Module) -> nn.Module:
    """A copy of ``module`` for inference, with batch norms folded into their convolutions.

    In evaluation a batch norm multiplies and adds constants, which the weights and the bias of the
    convolution before it can take over. Outputs are those of ``module.eval()`` up to rounding.

    Folded are convolutions that hold their norm (``ResNet``, ``ChannelMapper``), wherever in
    ``module`` they are, and the networks inside each ``TorchvisionBackbone`` and ``TimmBackbone``
    as far as torch.fx can follow them; what it cannot follow stays as it is.

    Args:
        module: a backbone, or a whole detector. It is not changed.

    Returns:
        the copy, in evaluation mode and without gradients. It is made for running: names and shapes
        in its state dict are no longer those of ``module``.
    """
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    convs: list[Any] = [m for m in folded.modules() if isinstance(m, _CONVS_WITH_NORM)]
    for conv in convs:
        if type(conv) in _CONVS and _is_constant(conv.norm):
            _fold(conv, conv.norm)
            conv.norm = None
    for part in list(folded.modules()):
        if isinstance(part, TimmBackbone):
            _fold_graph(part.timm_model)
        elif isinstance(part, TorchvisionBackbone):
            _fold_graph(part.feature_extractor)
    return folded


def _is_constant(norm: Any) -> bool:
    return type(norm) in _NORMS and norm.running_mean is not None


def _fold(conv: Any, norm: Any) -> None:
    """Let ``conv`` do what ``norm`` does after it; the arithmetic is in float64."""
    tensors = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    doubled: list[Any] = [t if t is None else t.double() for t in tensors]
    weight, bias, mean, var, scale, shift = doubled
    fused = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, scale, shift)
    for name, value in zip(("weight", "bias"), fused, strict=True):
        folded = value.detach().to(conv.weight.dtype)
        setattr(conv, name, nn.Parameter(folded, requires_grad=False))


class _Tracer(fx.Tracer):
    """Follows a network down to its convolutions and norms."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaves = (*_NORMS, *timm.layers.get_notrace_modules(), nn.Conv2d)
        return isinstance(m, leaves) or super().is_leaf_module(m, module_qualified_name)


def _trace(network: nn.Module) -> fx.Graph:
    """The graph of ``network``, empty where its path depends on the values or sizes in it."""
    if not any(_is_constant(module) for module in network.modules()):
        return fx.Graph()
    tracer = _Tracer(autowrap_functions=tuple(timm.layers.get_notrace_functions()))
    try:
        return tracer.trace(network)
    except Exception as error:  # whatever a network's own code raises when a size is no number
        logger.info("The norms of %s stay unfolded: %s", type(network).__name__, error)
        return fx.Graph()


def _fold_graph(network: nn.Module) -> None:
    """Fold each norm in ``network`` into the convolution that it alone follows."""
    for conv_name, norm_name in list(_pairs(network, _trace(network))):
        norm = network.get_submodule(norm_name)
        _fold(network.get_submodule(conv_name), norm)
        parent, _, name = norm_name.rpartition(".")
        setattr(network.get_submodule(parent), name, _rest_of(norm))


def _pairs(network: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    """Names of a convolution and the norm after it, where no one else sees what is in between."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if calls[node.target] != 1 or not node.all_input_nodes:
            continue
        conv = node.all_input_nodes[0]
        if calls[conv.target] != 1 or len(conv.users) != 1:
            continue
        before, norm = (network.get_submodule(str(n.target)) for n in (conv, node))
        if type(before) in _CONVS and _is_constant(norm):
            yield str(conv.target), str(node.target)


def _rest_of(norm: Any) -> nn.Module:
    """What a norm does besides normalizing."""
    return (
        nn.Sequential(norm.drop, norm.act) if isinstance(norm, _NORMS_WITH_ACT) else nn.Identity()
    )
