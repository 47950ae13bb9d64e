"""Where a number that isn't finite comes from: which module, which images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from detrex.utils.nonfinite import NonFinite, nonfinite_handled_by
from detrex.utils.processes import single_process

__all__ = ["describe", "first_nonfinite_module", "origin"]

Batch = Sequence[Mapping[str, Any]]


class _Found(Exception):
    """Leaves a forward pass that is run for its first number that isn't finite."""


def describe(model: nn.Module, found: NonFinite, batch: Batch) -> str:
    """Describe predictions that aren't finite; to be called before weights change."""
    layers = [
        f"{layer} ({', '.join(_name(batch, i) for i in images)})"
        for layer, images in found.images.items()
    ]
    return (
        f"predictions are NaN or infinite, in {', '.join(layers)}; this is step number "
        f"{found.times} with any. {origin(model, batch)} Such queries are matched last. Training "
        "is about to diverge: lower the learning rate, clip gradients, or use bfloat16 in place "
        "of float16."
    )


def origin(model: nn.Module, batch: Batch) -> str:
    """Name, in a sentence, an image that isn't finite or the first module whose output isn't."""
    broken = [_name(batch, i) for i, x in enumerate(batch) if not _finite(x["image"])]
    if broken:
        return f"The pixels of {', '.join(broken)} are not finite themselves."
    if comm.get_world_size() > 1 and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        return "Norms that are synchronized keep the batch from being run again to find the module."
    name = first_nonfinite_module(model, lambda: model(batch))
    if name is None:
        return "Run again, the batch of this process gives finite numbers only."
    module = model.get_submodule(name)
    weights = [n for n, p in module.named_parameters() if not _finite(p)]
    from_weights = f", whose {', '.join(weights[:3])} is not finite either" if weights else ""
    return f"The first output that is not finite is of {name or 'the model'}{from_weights}."


def first_nonfinite_module(model: nn.Module, run: Callable[[], Any]) -> str | None:
    """Run a forward pass up to the first module that puts out NaN or infinity, and name it.

    Random states and buffers are afterwards as they were. Other processes need not take part.
    """

    def hook(name: str) -> Callable[..., None]:
        def check(module: nn.Module, args: Any, output: Any) -> None:
            if not all(_finite(x) for x in _tensors(output)):
                raise _Found(name)

        return check

    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.enter_context(module.register_forward_hook(hook(name)))
        stack.enter_context(torch.random.fork_rng(_cuda_devices(model)))
        stack.enter_context(nonfinite_handled_by(lambda found: None))
        stack.enter_context(single_process())
        stack.enter_context(torch.no_grad())
        try:
            run()
        except _Found as found:
            return str(found)
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)
    return None


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    return list({p.device for p in model.parameters() if p.is_cuda})


def _name(batch: Batch, index: int) -> str:
    return str(batch[index].get("file_name", f"image {index} of the batch"))


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(torch.isfinite(x).all())


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested containers and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        yield from _tensors(list(vars(value).values()))
