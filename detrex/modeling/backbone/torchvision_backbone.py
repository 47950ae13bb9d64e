"""Any network of torchvision as a backbone, by the names of nodes in its graph."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from detrex.utils.weight_files import read_state_dict

from . import weights as weight_files
from .arguments import plain_arguments
from .frozen_norm import freeze_all_norms, is_frozen_norm

__all__ = ["TorchvisionBackbone"]

_RESNET_NODES = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
# With powers of two on one side and three times as much on the other, a map's two sides can be
# told from its channels, which decides between (B, C, H, W) and (B, H, W, C).
_PROBE_SIZE = (256, 384)


class TorchvisionBackbone(Backbone):
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
        tracer_kwargs, suppress_diff_warning: passed to ``create_feature_extractor``.
        checkpoint_path: a local file of weights, instead of ``weights``.
        norm_layer: ``FrozenBatchNorm2d`` (or ``"FrozenBN"``) for constant batch norms; anything
            else is handed to torchvision.
        freeze_norm: the same as ``norm_layer=FrozenBatchNorm2d``.
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
        suppress_diff_warning: bool = False,
        *,
        checkpoint_path: str = "",
        norm_layer: Any = None,
        freeze_norm: bool = False,
        **model_arguments: Any,
    ) -> None:
        super().__init__()
        model_arguments = plain_arguments(model_arguments)
        if pretrained and weights is None:
            weights = "IMAGENET1K_V1"
        if is_frozen_norm(norm_layer):
            freeze_norm = True
        elif norm_layer is not None:
            model_arguments["norm_layer"] = norm_layer
        nodes = _output_nodes(return_nodes, train_return_nodes, eval_return_nodes)
        options = {"tracer_kwargs": tracer_kwargs, "suppress_diff_warning": suppress_diff_warning}
        _check_model_name(model_name)
        self._weights = None if checkpoint_path else _resolve_weights(model_name, weights)

        network = _build(model_name, None, model_arguments)
        _check_nodes(model_name, network, nodes, tracer_kwargs)
        extractor = create_feature_extractor(network, **nodes, **options)
        shapes, self._channels_last = _dry_run(model_name, extractor)
        if self._weights is not None:
            network = _build(model_name, self._weights, model_arguments)
        if freeze_norm:
            network = freeze_all_norms(network, model_name)
        if freeze_norm or self._weights is not None:
            extractor = create_feature_extractor(network, **nodes, **options)
        self.feature_extractor = extractor.train()
        if checkpoint_path:
            path = Path(checkpoint_path)
            state = read_state_dict(path)
            weight_files.load_trunk(self.feature_extractor, state, path)
        self._out_features = list(shapes)
        self._out_feature_channels = {name: channels for name, (channels, _) in shapes.items()}
        self._out_feature_strides = {name: stride for name, (_, stride) in shapes.items()}

    @property
    def size_divisibility(self) -> int:
        """What height and width are padded to a multiple of, so that all outputs agree."""
        return math.lcm(*self._out_feature_strides.values())

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """Mean of the images that the weights expect: RGB, 0 to 255; ImageNet's without any."""
        return self._pixel_statistic("mean", (0.485, 0.456, 0.406))

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """Standard deviation that goes with :attr:`pixel_mean`."""
        return self._pixel_statistic("std", (0.229, 0.224, 0.225))

    def _pixel_statistic(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        transforms = None if self._weights is None else self._weights.transforms()
        return tuple(255.0 * value for value in getattr(transforms, name, default))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs by name, in the order in which the network computes them.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        if x.dim() != 4:
            raise ValueError(f"A backbone takes images (B, C, H, W), not {tuple(x.shape)}.")
        return {
            name: (y.permute(0, 3, 1, 2) if name in self._channels_last else y).contiguous()
            for name, y in self.feature_extractor(x).items()
        }


def _output_nodes(
    both: Mapping[str, str] | None,
    train: Mapping[str, str] | None,
    evaluation: Mapping[str, str] | None,
) -> dict[str, dict[str, str]]:
    """Arguments of ``create_feature_extractor`` that say where to cut."""
    if train is None and evaluation is None:
        return {"return_nodes": dict(_RESNET_NODES if both is None else both)}
    if train is None or evaluation is None or both is not None:
        raise ValueError(
            "Say either return_nodes, or both train_return_nodes and eval_return_nodes."
        )
    if set(train.values()) != set(evaluation.values()):
        raise ValueError(
            f"Training would return {sorted(train.values())}, evaluation "
            f"{sorted(evaluation.values())}; the names have to be the same."
        )
    return {"train_return_nodes": dict(train), "eval_return_nodes": dict(evaluation)}


def _check_model_name(model_name: str) -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    if model_name not in known:
        close = difflib.get_close_matches(model_name, known, n=5, cutoff=0.5)
        hint = f" The nearest are {', '.join(close)}." if close else ""
        raise ValueError(
            f"torchvision {torchvision.__version__} has no classification network named "
            f"{model_name!r}.{hint}"
        )


def _resolve_weights(model_name: str, weights: WeightsEnum | str | None) -> WeightsEnum | None:
    if weights is None:
        return None
    known = torchvision.models.get_model_weights(model_name)
    if isinstance(weights, known):
        return weights
    name = str(weights).rpartition(".")[2]
    if name not in known.__members__:
        raise ValueError(
            f"torchvision has no weights {weights!r} for {model_name}; there are "
            f"{', '.join(known.__members__)}."
        )
    return known[name]


def _build(model_name: str, weights: WeightsEnum | None, arguments: dict[str, Any]) -> nn.Module:
    try:
        return torchvision.models.get_model(model_name, weights=weights, **arguments)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"{model_name} cannot be built with {arguments}: {error}") from error
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        url = None if weights is None else weights.url
        raise RuntimeError(
            f"The weights {weights} could not be had from {url} ({error}). Without a connection, "
            f"fetch the file elsewhere and put it into {folder}, or give it as checkpoint_path=."
        ) from error


def _check_nodes(
    model_name: str,
    network: nn.Module,
    nodes: dict[str, dict[str, str]],
    tracer_kwargs: dict[str, Any] | None,
) -> None:
    """Raise ValueError with the nearest names for a node that the graph does not have."""
    train, evaluation = get_graph_node_names(network, tracer_kwargs=tracer_kwargs)
    known = {
        "return_nodes": [name for name in train if name in set(evaluation)],
        "train_return_nodes": train,
        "eval_return_nodes": evaluation,
    }
    for argument, wanted in nodes.items():
        names = _with_prefixes(known[argument])
        for name in wanted:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=5, cutoff=0.3)
                raise ValueError(
                    f"{argument} names the node {name!r}, which {model_name} does not have; the "
                    f"nearest are {', '.join(close or names[-5:])}."
                )


def _with_prefixes(nodes: list[str]) -> list[str]:
    """Nodes and the modules that they are in: ``layer1.0.conv1``, ``layer1.0`` and ``layer1``."""
    names: dict[str, None] = {}
    for node in nodes:
        parts = node.split(".")
        names.update((".".join(parts[:end]), None) for end in range(1, len(parts) + 1))
    return list(names)


def _dry_run(model_name: str, extractor: nn.Module) -> tuple[dict[str, tuple[int, int]], set[str]]:
    """Channels and strides of the outputs, and the names of those that come as (B, H, W, C).

    The meta device computes shapes without memory or arithmetic.
    """
    height, width = _PROBE_SIZE
    image = torch.empty(1, 3, height, width, device="meta")
    tensors = {key: value.to("meta") for key, value in extractor.state_dict().items()}
    try:
        with torch.no_grad():
            outputs = torch.func.functional_call(extractor.eval(), tensors, (image,))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"{model_name} does not take an image of {height} x {width} ({error}), while a "
            "detector's images have many sizes; take another network."
        ) from error
    shapes: dict[str, tuple[int, int]] = {}
    channels_last = set()
    for name, output in outputs.items():
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise ValueError(f"The node behind {name!r} of {model_name} gives no feature map.")
        if output.shape[1] * width == output.shape[2] * height:
            channels_last.add(name)
            output = output.permute(0, 3, 1, 2)
        stride = round(height / output.shape[2])
        shapes[name] = (output.shape[1], stride)
    return shapes, channels_last
