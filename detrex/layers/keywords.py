"""Keywords that loops give to layers, and layers to attentions.

A misspelled keyword must not vanish, and what is context for another layer must do no harm.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable

import torch
from torch import nn

CONTEXT = (
    "is_first_layer",
    "level_start_index",
    "query_sine_embed",
    "reference_points",
    "spatial_shapes",
    "valid_ratios",
)
"""Keywords that encoder and decoder loops, also those written for the public detrex, offer to every
layer: one whose attentions have no use for them ignores them. Any other must be taken."""

IGNORED = "ignored"
"""What the ``**`` parameter of a ``forward`` is called that takes any keyword and uses none."""


@functools.cache
def _parameters(forward: Callable) -> tuple[str, ...] | None:
    parameters = list(inspect.signature(forward).parameters.values())[1:]  # without self
    variable = [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if any(p.name != IGNORED for p in variable):
        return None
    positional = inspect.Parameter.POSITIONAL_ONLY
    return tuple(p.name for p in parameters if p.kind is not positional and p not in variable)


@torch.compiler.assume_constant_result
def taken(kind: type[nn.Module]) -> tuple[str, ...] | None:
    """Keywords that the ``forward`` of a kind of attention takes; None if it takes any."""
    return _parameters(kind.forward)


def check_keywords(
    given: Iterable[str], attentions: Iterable[nn.Module], foreign: bool = False
) -> None:
    """Refuses keywords that are no context and that none of the attentions takes.

    Args:
        given: the keywords.
        attentions: of the layer that was called.
        foreign: keywords of another make are context for others and let through, unless they are
            like one that is known.

    Raises:
        TypeError: naming the keyword, one that is like it, and what each attention takes.
    """
    by_kind = {type(attention): taken(type(attention)) for attention in attentions}
    if None in by_kind.values():
        return
    known = {*CONTEXT, *(name for names in by_kind.values() for name in names or ())}
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(name, sorted(known), 1, 0.8 if foreign else 0.6)
        if foreign and not close:
            continue
        kinds = [f"{kind.__name__} takes {', '.join(n or ())}" for kind, n in by_kind.items()]
        raise TypeError(
            f"No attention of this layer takes the keyword {name!r}."
            + (f" Did you mean {close[0]!r}? " if close else " ")
            + ("; ".join(kinds) or "The layer has no attention")
            + "."
        )
