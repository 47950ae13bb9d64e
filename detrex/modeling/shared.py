"""One module in several places of a model, said once in its config."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from detrex.modeling.initialization import modules_and_predictors


class Shared(nn.Module):
    """Stands in a config for a module that is described elsewhere in it.

    ``L(Shared)(path="transformer.encoder.pos_embed")`` is, once the model is built, the very module
    of that name: its parameters exist and train once for all places, and the state dict has them
    under each name.

    Args:
        path: the module's name within the model.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"Shared({self.path!r}) is not connected: a DETR does that when built.")


def connect_shared(model: nn.Module) -> None:
    """Puts the modules that each :class:`Shared` names into its place.

    Raises:
        ValueError: there is no module of that name.
    """
    modules = dict(model.named_modules())
    for parent in list(modules_and_predictors(model)):
        for name, child in parent.named_children():
            if isinstance(child, Shared):
                setattr(parent, name, _find(modules, child.path))


def _find(modules: dict[str, nn.Module], path: str) -> nn.Module:
    found = modules.get(path)
    if found is None or isinstance(found, Shared):
        close = difflib.get_close_matches(path, [name for name in modules if name], n=3)
        hint = f" Near are: {', '.join(close)}." if close else ""
        raise ValueError(f"Shared({path!r}): the model has no module of that name.{hint}")
    return found
