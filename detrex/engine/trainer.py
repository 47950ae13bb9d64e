"""One training step for every model: precision, accumulation, clipping, checks."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detrex.engine.divergence import describe, origin
from detrex.engine.seeds import seed_all, seed_at
from detrex.utils.nonfinite import NonFinite, nonfinite_handled_by

__all__ = ["Trainer", "amp_dtype", "step_options"]

logger = logging.getLogger(__name__)

Batch = list[dict[str, Any]]
Losses = dict[str, Tensor]


def amp_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that ``train.amp.dtype`` stands for.

    Args:
        name: "bfloat16", "float16", or "auto": bfloat16 unless the GPU only emulates it. Its
            exponent is as wide as float32's, so losses and gradients neither overflow nor vanish.
        device: where the model is.

    Raises:
        ValueError: any other name.
    """
    if name == "auto":
        native = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if native else torch.float16
    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise ValueError(f"train.amp.dtype={name!r} is not one of auto, {', '.join(dtypes)}.")
    return dtypes[name]


def step_options(train: DictConfig, device: torch.device) -> dict[str, Any]:
    """Arguments of :class:`Trainer` about how a step is taken, from the ``train`` of a config."""
    return {
        "amp": train.amp.enabled,
        "amp_dtype": amp_dtype(train.amp.dtype, device),
        "clip_grad_params": train.clip_grad.params if train.clip_grad.enabled else None,
    }


class Trainer(SimpleTrainer):
    """Trains a model that maps a batch to a dict of (already weighted) losses.

    Args:
        model: called with a batch (list of dicts) in training mode.
        data_loader: endless iterable of batches.
        optimizer: over the model's parameters.
        amp: run the model in autocast on its device.
        amp_dtype: see ``amp_dtype``; float16 comes with gradient scaling.
        clip_grad_params: arguments of ``torch.nn.utils.clip_grad_norm_``; None does not clip.
        grad_accum_steps: batches per optimizer step. Batches count by their number of objects, so
            that losses which are normalized by it (all box losses and the focal loss of the DETR
            family) have the gradient of one large batch.
        gather_metric_period: iterations between two gatherings of the losses over all processes.
        seed: called for a seed that dropout and other random numbers of an iteration are drawn
            from, apart from its number and the process. Then no state of a generator has to be
            saved for a resumed training to draw the same. By default nothing is seeded.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Batch],
        optimizer: torch.optim.Optimizer,
        amp: bool = False,
        amp_dtype: torch.dtype = torch.bfloat16,
        clip_grad_params: Mapping[str, Any] | None = None,
        grad_accum_steps: int = 1,
        gather_metric_period: int = 1,
        seed: Callable[[], int] | None = None,
    ) -> None:
        if grad_accum_steps < 1:
            raise ValueError(f"train.grad_accum_steps must be at least 1, got {grad_accum_steps}.")
        super().__init__(model, data_loader, optimizer, gather_metric_period)
        self.max_iter = sys.maxsize  # until ``train`` says
        self.device = next(model.parameters()).device
        self.amp = amp
        self.amp_dtype = amp_dtype
        self.clip_grad_params = clip_grad_params
        self.grad_accum_steps = grad_accum_steps
        self.seed = seed
        scaled = amp and amp_dtype is torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device.type) if scaled else None
        self._nonfinite: list[tuple[NonFinite, Batch]] = []  # met in this iteration

    def run_step(self) -> None:
        """Forward, backward, checks, update."""
        if not self.model.training:
            raise RuntimeError(
                "the model is in evaluation mode; whatever called model.eval() has to call "
                "model.train() when it is done."
            )
        start = time.perf_counter()
        batches = [next(self._data_loader_iter) for _ in range(self.grad_accum_steps)]
        data_time = time.perf_counter() - start
        if self.seed is not None:
            # Behind the loader, which draws numbers too. Seeds of samples are made of two numbers,
            # which count as if zeros followed: the last one here keeps these apart from them.
            seed_all(seed_at(self.seed(), self.iter, comm.get_rank(), 1))

        self.optimizer.zero_grad(set_to_none=True)
        self._nonfinite.clear()
        losses = self._backward(batches)
        for found, batch in self._nonfinite:
            logger.warning("Iteration %d: %s", self.iter, self._trace(describe, found, batch))
        self.after_backward()
        try:
            # Raises on a loss that is not finite, and names it, before any weight has changed.
            self._write_metrics(losses, data_time)
        except FloatingPointError as e:
            where = [self._trace(origin, batch) for batch in batches]
            raise FloatingPointError("\n".join([str(e), *where])) from e
        self._update()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        # After training, hooks see an iteration that hasn't run; a resumed run is to begin with it.
        state["iteration"] = min(self.iter, max(self.start_iter, self.max_iter) - 1)
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        _follow_layout(self.optimizer)
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])

    def _backward(self, batches: Sequence[Batch]) -> Losses:
        """Add up the gradients of all batches; returns their joint losses, detached."""
        total: Losses = {}
        weights = _batch_weights(batches, self.device)
        for i, (batch, weight) in enumerate(zip(batches, weights, strict=True)):
            with self._no_sync(i < len(batches) - 1):
                losses = {name: loss * weight for name, loss in self._forward(batch).items()}
                loss = _sum(losses)
                (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
            for name, value in losses.items():
                total[name] = total[name] + value.detach() if name in total else value.detach()
        return total

    def _forward(self, batch: Batch) -> Losses:
        handler = lambda found: self._nonfinite.append((found, batch))  # noqa: E731
        with self._autocast(), nonfinite_handled_by(handler):
            losses = self.model(batch)
        if not isinstance(losses, dict) or not losses:
            raise TypeError(
                "in training mode the model has to return a non-empty dict of losses, "
                f"got {type(losses).__name__}."
            )
        return losses

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp)

    def _trace(self, describe: Callable[..., str], *args: Any) -> str:
        """A description of numbers that aren't finite, found in the model without its wrapper."""
        wrapped = isinstance(self.model, DistributedDataParallel)
        with self._autocast():
            return describe(self.model.module if wrapped else self.model, *args)

    def _no_sync(self, active: bool) -> AbstractContextManager[Any]:
        """Between accumulated batches, processes need not exchange gradients."""
        if active and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def _update(self) -> None:
        scaler = self.grad_scaler
        if self.clip_grad_params is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            self._clip(self.clip_grad_params)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()

    def _clip(self, params: Mapping[str, Any]) -> None:
        # With a scaler, a gradient that is not finite is expected now and then: the scaler then
        # skips the step. Without one it would turn the weights into NaN.
        strict = self.grad_scaler is None
        try:
            norm = nn.utils.clip_grad_norm_(
                self.model.parameters(), error_if_nonfinite=strict, **params
            )
        except RuntimeError as e:
            culprits = _non_finite_gradients(self.model)
            if not culprits:
                raise
            raise FloatingPointError(
                f"the gradient is not finite at iteration {self.iter}, in {len(culprits)} "
                f"parameters: {', '.join(culprits[:5])}."
            ) from e
        self.storage.put_scalar("grad_norm", float(norm))


def _sum(losses: Losses) -> Tensor:
    """In single precision at least: half precision would round, and overflow when scaled."""
    values = list(losses.values())
    dtype = torch.promote_types(values[0].dtype, torch.float32)
    return torch.stack([value.to(dtype) for value in values]).sum()


def _batch_weights(batches: Sequence[Batch], device: torch.device) -> list[float]:
    """Each batch's share of the objects of all batches and processes.

    Criteria divide by the number of objects of all processes, at least 1; the share undoes that for
    one batch and does it for all of them together.
    """
    if len(batches) == 1:
        return [1.0]
    counts = torch.tensor(
        [sum(len(x["instances"]) for x in batch) for batch in batches],
        dtype=torch.float64 if device.type != "mps" else torch.float32,
        device=device,
    )
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
    weights = counts.clamp(min=1) / counts.sum().clamp(min=1)
    return [float(w) for w in weights]


def _non_finite_gradients(model: nn.Module) -> list[str]:
    grads = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return [name for name, grad in grads if not torch.isfinite(grad).all()]


def _follow_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer keeps of each parameter the parameter's order in memory.

    A checkpoint has that of the machine it was written on; the fused steps of torch pair numbers
    as they lie in memory.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
