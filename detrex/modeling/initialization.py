"""How a transformer starts: Xavier-uniform matrices, except where a module owns its start.

Initialisation belongs to modules:

- **A module with a ``reset_parameters`` of its own** (not torch's) is asked for its start, after
  the modules inside it; so each copy of a head gets random numbers of its own.
- **A module of another library or of yours**, which is built on no class of detrex, keeps the
  start that its constructor gave it, and so does everything inside it.
- **All others**, torch's layers and detrex's blocks, get Xavier-uniform matrices (DETR,
  arXiv:2005.12872) and keep their other parameters as they are. Embeddings stay normal.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn


def initialize(model: nn.Module) -> None:
    """Gives all parameters of ``model`` their start, in place.

    Matrices that a module initializes itself are still drawn here first, so that a given seed keeps
    producing the same weights.
    """
    kept = _kept_modules(model)
    for module in model.modules():
        for parameter in module.parameters(recurse=False) if module not in kept else ():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
    _reset(model, kept)


@torch.no_grad()
def _reset(module: nn.Module, kept: set[nn.Module]) -> None:
    """Modules inside first."""
    for child in module.children():
        _reset(child, kept)
    starts = type(module) is nn.Embedding or _has_own_start(type(module))
    if starts and (module not in kept or _is_foreign(type(module))):
        module.reset_parameters()  # type: ignore[operator]


def modules_and_predictors(model: nn.Module) -> Iterator[nn.Module]:
    """All modules. A decoder's predictor isn't registered, only what is inside it."""
    for module in model.modules():
        yield module
        predictor = vars(module).get("predictor")
        if isinstance(predictor, nn.Module):
            yield predictor


def _kept_modules(model: nn.Module) -> set[nn.Module]:
    """Modules that are neither torch's nor built on detrex's, and all inside them."""
    foreign = [m for m in modules_and_predictors(model) if _is_foreign(type(m))]
    return {inner for module in foreign for inner in module.modules()}


def _has_own_start(kind: type[nn.Module]) -> bool:
    reset = getattr(kind, "reset_parameters", None)
    return reset is not None and not _is_torch(reset.__module__)


def _is_foreign(kind: type[nn.Module]) -> bool:
    ancestors = {base.__module__.partition(".")[0] for base in kind.__mro__}
    return not _is_torch(kind.__module__) and "detrex" not in ancestors


def _is_torch(module_name: str) -> bool:
    return module_name.partition(".")[0] == "torch"
