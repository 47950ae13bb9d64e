"""Parameters, operations and activations of models that take lists of dicts.

fvcore counts them for modules that take tensors; ``FlopCountAnalysis`` and its kin here take what
a detector takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from fvcore.nn import ActivationCountAnalysis, parameter_count, parameter_count_table
from fvcore.nn import FlopCountAnalysis as _FlopCountAnalysis
from torch import nn

__all__ = [
    "FlopCountAnalysis",
    "activation_count_operators",
    "find_unused_parameters",
    "flop_count_operators",
    "parameter_count",
    "parameter_count_table",
]


class _TensorInterface(nn.Module):
    """A model with its non-tensor inputs fixed, from tensors to tensors, as tracing needs it."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.model = model
        self._inputs = inputs
        self.tensors = tuple(_tensors_in(inputs))

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        replacements = iter(tensors)
        outputs = self.model(_map_tensors(self._inputs, lambda _: next(replacements)))
        return tuple(_tensors_in(outputs))


def _map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of nested lists and dicts, with a function applied to the tensors in order."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_map_tensors(item, function) for item in value]
    return value


def _tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in nested lists, dicts, ``Instances`` and ``Boxes``, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Boxes):
        return [value.tensor]
    if isinstance(value, Instances):
        value = value.get_fields()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for item in value for tensor in _tensors_in(item)]
    return []


class FlopCountAnalysis(_FlopCountAnalysis):
    """fvcore's analysis for models that take lists of dicts.

    Module names begin with "model". Put the model into eval mode first, unless the training
    graph is what you want to count.

    Args:
        model: the model.
        inputs: what it is called with.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        interface = _TensorInterface(model, inputs)
        super().__init__(interface, interface.tensors)


def flop_count_operators(model: nn.Module, inputs: Any) -> dict[str, float]:
    """Multiply-adds of one call in units of 10**9, by kind of operator.

    Args:
        model: counted in eval mode.
        inputs: what it is called with.
    """
    with _evaluating(model), torch.no_grad():
        counts = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).by_operator()
    return _scaled(counts, 1e9)


def activation_count_operators(model: nn.Module, inputs: Any) -> dict[str, float]:
    """Output elements of convolutions and matrix products in units of 10**6, by operator.

    Args:
        model: counted in eval mode.
        inputs: what it is called with.
    """
    interface = _TensorInterface(model, inputs)
    with _evaluating(model), torch.no_grad():
        analysis = ActivationCountAnalysis(interface, interface.tensors)
        counts = analysis.unsupported_ops_warnings(False).by_operator()
    return _scaled(counts, 1e6)


def _scaled(counts: Counter[str], unit: float) -> dict[str, float]:
    return {name: count / unit for name, count in counts.items()}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def find_unused_parameters(model: nn.Module, inputs: Any) -> list[str]:
    """Names of trainable parameters that get no gradient from the losses of a batch.

    DistributedDataParallel fails on them. Gradients of the model are cleared.

    Args:
        model: in training mode; returns a dict of losses.
        inputs: a batch.
    """
    assert model.training, "find_unused_parameters needs a model in training mode."
    model.zero_grad(set_to_none=True)
    losses = model(inputs)
    if isinstance(losses, Mapping):
        losses = sum(losses.values())
    losses.backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.zero_grad(set_to_none=True)
    return unused
