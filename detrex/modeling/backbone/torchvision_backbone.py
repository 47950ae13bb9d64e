"""Any network of torchvision as a backbone, by the names of nodes in its graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.feature_extraction import create_feature_extractor

from detrex.modeling.backbone import torchvision_graph as graph
from detrex.modeling.backbone import torchvision_weights as networks
from detrex.modeling.backbone.arguments import as_channels_first, check_images, norm_arguments
from detrex.modeling.backbone.frozen_norm import freeze_all_norms, freeze_parameters
from detrex.modeling.backbone.pixels import PixelProperties

__all__ = ["TorchvisionBackbone"]


class TorchvisionBackbone(PixelProperties, Backbone):
    """A torchvision network cut at named nodes: (B, C, H, W) -> {name: (B, C_i, H_i, W_i)}.

    Only what the outputs depend on is kept. Channels and strides are found by running the network
    once without memory. Outputs are contiguous and channels first.

    Args:
        model_name: a network of ``torchvision.models.list_models()``.
        weights: None, a member of torchvision's weight enums, its name (``"IMAGENET1K_V1"``) or
            ``"DEFAULT"`` for torchvision's newest.
        pretrained: the old way to say ``weights="IMAGENET1K_V1"``.
        return_nodes: names of outputs by node; the default is a ResNet's.
        train_return_nodes, eval_return_nodes: both instead of ``return_nodes``, for networks
            whose nodes differ between training and evaluation.
        tracer_kwargs, suppress_diff_warnings: passed to ``create_feature_extractor``.
        checkpoint_path: a local file of weights, instead of ``weights``.
        norm_layer: ``FrozenBatchNorm2d`` (or ``"FrozenBN"``) for frozen batch norms; anything
            else is handed to torchvision.
        in_channels: channels of the images; weights are adapted to it.
        freeze_at: 0 freezes nothing, 1 the stem, k >= 2 everything up to the stage that ends with
            stride ``2 ** k``: counted as in a ResNet, where 2 is the stem and res2.
        freeze_norm: the same as ``norm_layer=FrozenBatchNorm2d``.
        grad_checkpointing: refused, as torchvision's networks cannot.
        model_arguments: more arguments of the network, like ``replace_stride_with_dilation``.

    Raises:
        ValueError: for a network, weights or a node that does not exist, naming what does.
    """

    def __init__(
        self,
        model_name: str = "resnet50",
        weights: WeightsEnum | str | None = None,
        pretrained: bool | None = None,
        return_nodes: Mapping[str, str] | None = None,
        train_return_nodes: Mapping[str, str] | None = None,
        eval_return_nodes: Mapping[str, str] | None = None,
        tracer_kwargs: dict[str, Any] | None = None,
        suppress_diff_warnings: bool = False,
        *,
        checkpoint_path: str = "",
        in_channels: int = 3,
        norm_layer: Any = None,
        freeze_at: int = 0,
        freeze_norm: bool = False,
        grad_checkpointing: bool = False,
        **model_arguments: Any,
    ) -> None:
        super().__init__()
        if grad_checkpointing:
            raise ValueError(
                "torchvision's networks cannot checkpoint their gradients; take a TimmBackbone, "
                f"which has most of them ({model_name}?), or a ResNet."
            )
        if pretrained and weights is None:
            weights = "IMAGENET1K_V1"
        model_arguments, freeze_norm = norm_arguments(model_arguments, norm_layer, freeze_norm)
        nodes = graph.output_nodes(return_nodes, train_return_nodes, eval_return_nodes)
        options = {"tracer_kwargs": tracer_kwargs, "suppress_diff_warning": suppress_diff_warnings}
        networks.check_model_name(model_name)
        found = None if checkpoint_path else networks.find_weights(model_name, weights)

        network = networks.build(model_name, None, in_channels, model_arguments)
        graph.check_nodes(model_name, network, nodes, tracer_kwargs)
        extractor = create_feature_extractor(network, **nodes, **options)
        self._maps, stages = graph.dry_run(model_name, extractor, in_channels)
        wanted = networks.asked_for(found, checkpoint_path, model_name)
        if wanted and found is not None:
            network = networks.build(model_name, found, in_channels, model_arguments)
            extractor = create_feature_extractor(network, **nodes, **options)
        self.feature_extractor = extractor.train()
        if wanted and checkpoint_path:
            networks.load_file(extractor, Path(checkpoint_path), in_channels)
        freeze_parameters(extractor, graph.frozen_parameters(extractor, stages, freeze_at))
        if freeze_norm:
            freeze_all_norms(extractor, model_name)
        self._out_features = list(self._maps)
        self._pixels = networks.pixel_statistics(found).for_channels(in_channels)

    @property
    def model(self) -> nn.Module:
        """The network, of which only what the outputs depend on is left."""
        return self.feature_extractor

    @property
    def size_divisibility(self) -> int:
        """What height and width are padded to a multiple of, so that all outputs agree."""
        return math.lcm(*(output.stride for output in self._maps.values()))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output."""
        return {
            name: ShapeSpec(channels=output.channels, stride=output.stride)
            for name, output in self._maps.items()
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs by name, in the order in which the network computes them.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        check_images(x)
        return {
            name: as_channels_first(y, self._maps[name].channels_last)
            for name, y in self.feature_extractor(x).items()
        }
