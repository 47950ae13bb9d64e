"""Initial weights, by the rules of Caffe2's layers that detectron2's models follow."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["c2_msra_fill", "c2_xavier_fill"]

# fvcore.nn has these too, but importing it scripts a function, which torch warns about.


def c2_msra_fill(module: nn.Module) -> None:
    """Normal weights by fan-out for ReLU (arXiv:1502.01852), in place; the bias becomes 0."""
    weight, bias = _parameters(module)
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    if bias is not None:
        nn.init.zeros_(bias)


def c2_xavier_fill(module: nn.Module) -> None:
    """Uniform weights of variance 1 / fan-in, in place; the bias becomes 0."""
    weight, bias = _parameters(module)
    nn.init.kaiming_uniform_(weight, a=1)
    if bias is not None:
        nn.init.zeros_(bias)


def _parameters(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    weight, bias = module.weight, module.bias
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise TypeError(f"{type(module).__name__} has no weight and bias to initialize.")
    return weight, bias
