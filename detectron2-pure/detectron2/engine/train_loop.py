"""Two trainers for the common case, and the loop and hook classes that they build on.

A trainer owns the loop; a hook adds something at fixed points of it. What most scripts need is
``SimpleTrainer`` (one model, one optimizer, one data loader) with the hooks in
``detectron2.engine.hooks``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.data.build import TrainLoader
from detectron2.engine import metrics
from detectron2.engine.trainer_base import HookBase, TrainerBase
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]


class SimpleTrainer(TrainerBase):
    """One model, one optimizer, one data loader; each iteration uses one batch.

    Called with a batch in training mode, the model returns a dict of losses, whose sum is
    minimized, or one loss tensor.

    Args:
        model: the model; it is put into training mode.
        data_loader: an endless iterable of batches.
        optimizer: a torch optimizer.
        gather_metric_period: gather metrics from all ranks every so many iterations; more often
            costs time, and a non-finite loss is only seen then.
        zero_grad_before_forward: zero the gradients before the forward pass, not before the
            backward pass.
        async_write_metrics: gather and store metrics one iteration later, when the GPU has long
            computed them; it is then never waited for, and a non-finite loss is seen later, too.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        super().__init__()
        # A model that was left in eval mode by an evaluation would silently not train well.
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self._data_loader_iter_obj: Iterator[Any] | None = None
        self._pending_metrics: _PendingMetrics | None = None

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        # Made when first needed: workers start with training, not with the trainer.
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Replace the data loader; the old one is let go before the new one is built.

        Args:
            data_loader_builder: makes the new loader.
        """
        del self.data_loader
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    def run_step(self) -> None:
        """Forward, backward, log, update."""
        self._check_training_mode()
        start = time.perf_counter()
        data = self._next_batch()
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with self._precision_context():
            losses, loss_dict = _sum_losses(self.model(data))
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._scale_losses(losses).backward()
        self.after_backward()
        self._log_metrics(loss_dict, data_time)
        self._step_optimizer()

    def _precision_context(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def _scale_losses(self, losses: torch.Tensor) -> torch.Tensor:
        return losses

    def _step_optimizer(self) -> None:
        self.optimizer.step()

    def _check_training_mode(self) -> None:
        assert self.model.training, (
            f"[{type(self).__name__}] model was changed to eval mode! Whoever calls model.eval(), "
            "an evaluation for example, has to call model.train() afterwards."
        )

    def _next_batch(self) -> Any:
        try:
            return next(self._data_loader_iter)
        except StopIteration as e:
            raise RuntimeError(
                f"The data loader ended at iteration {self.iter}, before max_iter "
                f"{self.max_iter}; training needs an endless one."
            ) from e

    def _log_metrics(self, loss_dict: Mapping[str, torch.Tensor], data_time: float) -> None:
        """Write the metrics of this iteration, or those of the one before it."""
        if not self.async_write_metrics:
            self._write_metrics(loss_dict, data_time)
            return
        self._write_pending_metrics()
        self._pending_metrics = _PendingMetrics.copy(loss_dict, data_time, self.iter)

    def _write_pending_metrics(self) -> None:
        pending, self._pending_metrics = self._pending_metrics, None
        if pending is not None:
            self._write_metrics(pending.losses(), pending.data_time, iter=pending.iter)

    def _write_metrics(
        self,
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        prefix: str = "",
        iter: int | None = None,
    ) -> None:
        """Gather and store metrics, in the iterations in which that is due."""
        iter = self.iter if iter is None else iter
        if (iter + 1) % self.gather_metric_period == 0:
            self.write_metrics(loss_dict, data_time, iter, prefix)

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """See ``detectron2.engine.metrics.write_metrics``."""
        metrics.write_metrics(loss_dict, data_time, cur_iter, prefix)

    def after_train(self) -> None:
        try:
            if self._finished:  # after an error, other ranks may not be there to gather
                self._write_pending_metrics()
        finally:
            self._pending_metrics = None
            super().after_train()

    def _restore_rng(self) -> None:
        if self._rng_to_restore is not None:
            # Making the iterator draws a random number. In the interrupted run that happened
            # before the state was saved.
            _ = self._data_loader_iter
        super()._restore_rng()

    def state_dict(self) -> dict[str, Any]:
        ret = {**super().state_dict(), "optimizer": self.optimizer.state_dict()}
        if isinstance(self.data_loader, TrainLoader):
            ret["data_seed"] = self.data_loader.seed
        return ret

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave.

        If the data loader is one of ``build_detection_train_loader``, it goes on with the batch
        after the last one that was used, one per iteration.
        """
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if isinstance(self.data_loader, TrainLoader) and "data_seed" in state_dict:
            self.data_loader.start_at(self.iter + 1, seed=state_dict["data_seed"])
            self._data_loader_iter_obj = None


class AMPTrainer(SimpleTrainer):
    """``SimpleTrainer`` in mixed precision, on any device that torch.autocast knows.

    The forward pass runs in autocast. Gradients are scaled only for float16, whose range is too
    small for them; bfloat16 has that of float32.

    Args:
        model, data_loader, optimizer, gather_metric_period, zero_grad_before_forward,
            async_write_metrics: see ``SimpleTrainer``.
        grad_scaler: a torch GradScaler; by default one is made for float16 and none otherwise.
        precision: torch.float16 or torch.bfloat16; by default float16 on CUDA, else bfloat16.
        log_grad_scaler: also store the scale as the metric ``[metric]grad_scaler``.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype | None = None,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            assert not (model.device_ids and len(model.device_ids) > 1), (
                "AMPTrainer does not support single-process multi-device training!"
            )
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
        )
        self.device_type = next(model.parameters()).device.type
        if precision is None:
            precision = torch.float16 if self.device_type == "cuda" else torch.bfloat16
        if grad_scaler is None and precision == torch.float16:
            grad_scaler = torch.amp.GradScaler(self.device_type)
        self.precision = precision
        self.grad_scaler = grad_scaler
        self.log_grad_scaler = log_grad_scaler

    def _precision_context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device_type, dtype=self.precision)

    def _scale_losses(self, losses: torch.Tensor) -> torch.Tensor:
        return losses if self.grad_scaler is None else self.grad_scaler.scale(losses)

    def _log_metrics(self, loss_dict: Mapping[str, torch.Tensor], data_time: float) -> None:
        if self.log_grad_scaler and self.grad_scaler is not None:
            self.storage.put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())
        super()._log_metrics(loss_dict, data_time)

    def _step_optimizer(self) -> None:
        if self.grad_scaler is None:
            super()._step_optimizer()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        ret = super().state_dict()
        if self.grad_scaler is not None:
            ret["grad_scaler"] = self.grad_scaler.state_dict()
        return ret

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # Either run may have used another precision: there is nothing to take over then.
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


@dataclass
class _PendingMetrics:
    """Metrics on their way from the GPU."""

    loss_dict: dict[str, torch.Tensor]
    data_time: float
    iter: int
    copied: torch.cuda.Event | None

    @classmethod
    def copy(
        cls, loss_dict: Mapping[str, torch.Tensor], data_time: float, iter: int
    ) -> _PendingMetrics:
        """Start to copy losses to the CPU."""
        losses = {name: torch.as_tensor(value).detach() for name, value in loss_dict.items()}
        copies = {name: value.to("cpu", non_blocking=True) for name, value in losses.items()}
        copied = None
        if any(value.is_cuda for value in losses.values()):
            copied = torch.cuda.Event()
            copied.record()
        return cls(copies, data_time, iter, copied)

    def losses(self) -> dict[str, torch.Tensor]:
        """The copied losses; waits for them if need be."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.loss_dict


def _sum_losses(
    output: torch.Tensor | dict[str, torch.Tensor],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss to minimize and the losses to log, from what a model returned."""
    if isinstance(output, torch.Tensor):
        return output, {"total_loss": output}
    return sum(output.values()), output  # type: ignore[return-value]
