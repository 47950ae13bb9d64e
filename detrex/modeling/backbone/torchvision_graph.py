"""What the graph of a torchvision network has: nodes, maps with their strides, stages."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import get_graph_node_names

from detrex.modeling.backbone.arguments import check_freeze_at

RESNET_NODES = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
# With powers of two on one side and three times as much on the other, a map's two sides can be
# told from its channels, which decides between (B, C, H, W) and (B, H, W, C).
_PROBE_SIZE = (256, 384)
# Where networks without stages of their own names keep them.
_CONTAINERS = ("features", "layers", "blocks", "trunk_output")


def output_nodes(
    both: Mapping[str, str] | None,
    train: Mapping[str, str] | None,
    evaluation: Mapping[str, str] | None,
) -> dict[str, dict[str, str]]:
    """Arguments of ``create_feature_extractor`` that say where to cut."""
    if train is None and evaluation is None:
        return {"return_nodes": dict(RESNET_NODES if both is None else both)}
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


def check_nodes(
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


@dataclass(frozen=True)
class Map:
    """A feature map: its width, its stride and whether it comes as (B, H, W, C)."""

    channels: int
    stride: int
    channels_last: bool


def _as_map(output: object) -> Map | None:
    """How a node's output shows the probe image, if it does.

    Convolutions without padding, as in Inception, lose a few cells; the stride is that without
    the loss.
    """
    height, width = _PROBE_SIZE
    if not isinstance(output, Tensor) or output.dim() != 4:
        return None
    _, second, third, fourth = output.shape
    if second * width == third * height:
        return Map(fourth, height // second, True)
    if third > 1 and abs(third * width / height - fourth) <= 3:
        return Map(second, 2 ** round(math.log2(height / third)), False)
    return None


def dry_run(
    model_name: str, extractor: nn.Module, in_channels: int
) -> tuple[dict[str, Map], dict[str, int]]:
    """The outputs by name, and the stride at the end of each stage in order of execution.

    The meta device computes shapes without memory or arithmetic.
    """
    image = torch.empty(1, in_channels, *_PROBE_SIZE, device="meta")
    tensors = {key: value.to("meta") for key, value in extractor.state_dict().items()}
    stages: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def record(module: nn.Module, inputs: Any, output: object) -> None:
            shape = _as_map(output)
            if shape is not None:
                stages[stage_of(name)] = shape.stride

        return module.register_forward_hook(record)

    hooks = [watch(name, module) for name, module in extractor.named_modules() if name]
    try:
        with torch.no_grad():
            outputs = torch.func.functional_call(extractor.eval(), tensors, (image,))
    except (AssertionError, RuntimeError) as error:
        height, width = _PROBE_SIZE
        raise ValueError(
            f"{model_name} does not take an image of {height} x {width} ({error}), while a "
            "detector's images have many sizes; take another network."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    maps: dict[str, Map] = {}
    for name, output in outputs.items():
        shape = _as_map(output)
        if shape is None:
            raise ValueError(f"The node behind {name!r} of {model_name} gives no feature map.")
        maps[name] = shape
    return maps, stages


def stage_of(name: str) -> str:
    """The stage of a module or parameter: ``layer1.0.conv1`` -> ``layer1``."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] in _CONTAINERS else 1])


def frozen_parameters(extractor: nn.Module, stages: Mapping[str, int], freeze_at: int) -> set[str]:
    """Names of the parameters that ``freeze_at`` covers: of the stem, and of further stages."""
    check_freeze_at(freeze_at)
    if freeze_at == 0:
        return set()
    frozen = _stem(extractor)
    if freeze_at > 1:
        frozen |= {stage for stage, stride in stages.items() if stride <= 2**freeze_at}
    return {name for name, _ in extractor.named_parameters() if stage_of(name) in frozen}


def _stem(extractor: nn.Module) -> set[str]:
    """The stage that sees the image, and the norm behind it where that stands alone."""
    axes: dict[str, int] = {}
    for name, parameter in extractor.named_parameters():
        axes[stage_of(name)] = max(axes.get(stage_of(name), 0), parameter.dim())
    first, *others = axes
    return {first, *(stage for stage in others[:1] if axes[stage] == 1)}
