"""torchvision's ResNets as DETR's authors cut them, with the names of weights of the public detrex.

They dilate as torchvision does. :class:`~detrex.modeling.backbone.TorchvisionBackbone` takes any
network of torchvision, and :class:`~detrex.modeling.backbone.ResNet` is detectron2's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2 import layers
from detectron2.modeling import Backbone
from torch import Tensor, nn

from detrex.modeling.backbone import torchvision_graph as graph
from detrex.modeling.backbone import torchvision_weights as networks
from detrex.modeling.backbone.arguments import check_images
from detrex.modeling.backbone.frozen_norm import freeze_parameters
from detrex.modeling.backbone.pixels import IMAGENET_RGB, PixelProperties
from detrex.modeling.backbone.torchvision_backbone import TorchvisionBackbone

__all__ = ["BackboneBase", "FrozenBatchNorm2d", "TorchvisionResNet"]

_TRAINED = ("layer2", "layer3", "layer4")


class FrozenBatchNorm2d(layers.FrozenBatchNorm2d):
    """detectron2's constant batch norm of ``n`` channels."""

    def __init__(self, n: int) -> None:
        super().__init__(n)


class _Trunk(nn.ModuleDict):
    """The modules of a network, one after the other, up to the last whose output is asked for."""

    def __init__(self, network: nn.Module, return_layers: Mapping[str, str]) -> None:
        modules = dict(network.named_children())
        wrong = [name for name in return_layers if name not in modules]
        if wrong or not return_layers:
            raise ValueError(
                f"return_layers names {wrong or 'nothing'}, but {type(network).__name__} has "
                f"{', '.join(modules)}."
            )
        last = max(list(modules).index(name) for name in return_layers)
        super().__init__(dict(list(modules.items())[: last + 1]))
        self.return_layers = dict(return_layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = {}
        for name, module in self.items():
            x = module(x)
            if name in self.return_layers:
                outputs[self.return_layers[name]] = x
        return outputs


class BackboneBase(PixelProperties, Backbone):
    """A network in stages ``layer1`` to ``layer4``: (B, C, H, W) -> {name: (B, C_i, H_i, W_i)}.

    ``body`` is the network without what comes behind the last map.

    Args:
        backbone: the network, whose modules run one after the other, as it has them.
        train_backbone: train its second stage and all behind it; otherwise nothing.
        num_channels: channels of its last map, kept for who asks.
        return_layers: names of maps by module of the network.

    Raises:
        ValueError: the network has no such module.
    """

    def __init__(
        self,
        backbone: nn.Module,
        train_backbone: bool,
        num_channels: int,
        return_layers: Mapping[str, str],
    ) -> None:
        super().__init__()
        name = type(backbone).__name__
        self.body = _Trunk(backbone, return_layers)
        self._maps, _ = graph.dry_run(name, self.body, networks.first_conv(backbone)[1].in_channels)
        self.body.train()
        self.num_channels = num_channels
        self._out_features = list(self._maps)
        self._pixels = IMAGENET_RGB
        trained = _TRAINED if train_backbone else ()
        frozen = {k for k, _ in self.body.named_parameters() if k.split(".")[0] not in trained}
        freeze_parameters(self.body, frozen)

    # Maps are described alike.
    size_divisibility = TorchvisionBackbone.size_divisibility
    output_shape = TorchvisionBackbone.output_shape

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps by name, in the order in which the network computes them.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        check_images(x)
        return self.body(x)


class TorchvisionResNet(BackboneBase):
    """A ResNet of torchvision with frozen norms.

    It starts from random weights: ``train.init_checkpoint`` gives others, like torchvision's own
    ``https://download.pytorch.org/models/resnet50-0676ba61.pth``, which loads by
    :func:`~detrex.checkpoint.load_weights`. They expect RGB images.

    Args:
        name: ``resnet50`` and the like.
        train_backbone: train ``layer2`` to ``layer4``; otherwise nothing.
        return_layers: names of maps by stage, ``{"layer4": "res5"}``.
        dilation: let ``layer4`` keep the resolution of ``layer3`` (DC5); its first block is not
            dilated.

    Raises:
        ValueError: there is no such network, stage, or dilation.
    """

    def __init__(
        self,
        name: str = "resnet50",
        train_backbone: bool = True,
        return_layers: Mapping[str, str] | None = None,
        dilation: bool = False,
    ) -> None:
        networks.check_model_name(name)
        arguments = {
            "replace_stride_with_dilation": [False, False, dilation],
            "norm_layer": FrozenBatchNorm2d,
        }
        network: Any = networks.build(name, None, 3, arguments)
        channels = network.fc.in_features
        super().__init__(network, train_backbone, channels, return_layers or {"layer4": "res5"})
