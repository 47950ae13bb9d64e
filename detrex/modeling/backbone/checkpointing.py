"""Gradient checkpointing that leaves no trace: a block that runs twice counts once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_checkpointed(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """``x`` through ``blocks``, keeping each block's input alone for the backward pass.

    The second run of a block leaves the running statistics of its batch norms as they are.
    """
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=False, context_fn=partial(contexts, block))
    return x


def contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What the first and the second run of a block that is checkpointed happen in."""
    return nullcontext(), _unrecorded(block)


@contextmanager
def _unrecorded(block: nn.Module) -> Iterator[None]:
    """Let batch norms write their statistics into copies that are thrown away."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    buffers = [dict(norm.named_buffers()) for norm in norms]
    for norm, own in zip(norms, buffers, strict=True):
        _set_buffers(norm, {name: value.clone() for name, value in own.items()})
    try:
        yield
    finally:
        for norm, own in zip(norms, buffers, strict=True):
            _set_buffers(norm, own)


def _set_buffers(norm: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, value in buffers.items():
        setattr(norm, name, value)
