"""The training loop, its hooks, and two trainers for the common case.

A trainer owns the loop; a hook adds something at fixed points of it. What most scripts need is
`SimpleTrainer` (one model, one optimizer, one data loader) with the hooks in
`detectron2.engine.hooks`.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from detectron2.engine import metrics
from detectron2.utils import comm
from detectron2.utils.env import get_rng_state, set_rng_state
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import _log_api_usage
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]


class HookBase:
    """Something to do at fixed points of training.

    The points, in order::

        before_train
        for each iteration:
            before_step
            [the trainer's run_step, which calls after_backward once gradients are there]
            after_step
        after_train            # also after an exception

    Hooks run in the order of their registration. ``self.trainer`` is set when the hook is
    registered; it does not keep the trainer alive. ``self.trainer.storage`` is open during all
    of these calls.
    """

    trainer: TrainerBase

    def before_train(self) -> None:
        """Called once, before the first iteration."""

    def after_train(self) -> None:
        """Called once, after the last iteration or an exception.

        ``self.trainer.iter == self.trainer.max_iter`` only if training came to its end.
        """

    def before_step(self) -> None:
        """Called before each iteration."""

    def after_backward(self) -> None:
        """Called in each iteration when the gradients are computed and not yet used."""

    def after_step(self) -> None:
        """Called after each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What the hook needs to go on after a restart; it becomes part of checkpoints.

        A hook that returns something has a ``load_state_dict`` too.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        raise NotImplementedError(f"{type(self).__name__} has a state but cannot load one.")


class TrainerBase:
    """A loop with hooks; subclasses say in `run_step` what an iteration is.

    Attributes:
        iter: the current iteration, from 0; equals ``max_iter`` in ``after_train`` once training
            has come to its end.
        start_iter: the iteration at which `train` started.
        max_iter: the iteration at which training ends (exclusive).
        storage: the metrics; open during `train`.
    """

    storage: EventStorage

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int = 0
        self._finished = False
        self._collected_rng: tuple[int, list[dict[str, Any]]] | None = None
        self._rng_to_restore: dict[str, Any] | None = None
        _log_api_usage("trainer." + type(self).__name__)

    def register_hooks(self, hooks: Sequence[HookBase | None]) -> None:
        """Add hooks behind those already registered; ``None`` entries are skipped.

        Raises:
            TypeError: an entry is not a hook.
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise TypeError(f"Only HookBase objects can be registered, not {hook!r}.")
            # A strong reference would make a cycle that keeps the model's memory for long.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run iterations ``start_iter``, ..., ``max_iter - 1``.

        Hooks' ``after_train`` runs also after an exception, which is then raised.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        self._finished = False
        self._log_start()
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                self._restore_rng()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max(start_iter, max_iter)
                self._finished = True
            except BaseException as e:
                self._finish_after_error(e)
                raise
            self.after_train()

    def _log_start(self) -> None:
        logger = logging.getLogger(__name__)
        if self.start_iter < self.max_iter:
            logger.info(f"Starting training from iteration {self.start_iter}")
            return
        logger.warning(
            f"Nothing to train: the start iteration {self.start_iter} is not below max_iter "
            f"{self.max_iter}. If you resumed a finished training, raise max_iter to go on, or "
            "start without resuming."
        )

    def _finish_after_error(self, error: BaseException) -> None:
        """Run ``after_train`` such that its own failure cannot hide the first one."""
        logger = logging.getLogger(__name__)
        if isinstance(error, Exception):
            logger.exception(f"Exception during training, at iteration {self.iter}:")
        else:
            logger.warning(f"Training was stopped by {type(error).__name__} at {self.iter}.")
        try:
            self.after_train()
        except Exception:
            logger.exception("Another exception in after_train:")

    def before_train(self) -> None:
        """Call the hooks' ``before_train``."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        """Call the hooks' ``after_train``: all of them, even when one fails."""
        self.storage.iter = self.iter
        first_error: Exception | None = None
        for hook in self._hooks:
            try:
                hook.after_train()
            except Exception as e:
                if first_error is None:
                    first_error = e
                else:
                    logging.getLogger(__name__).exception(f"Also failed in after_train: {hook}")
        if first_error is not None:
            raise first_error

    def before_step(self) -> None:
        """Call the hooks' ``before_step``."""
        # Whatever a hook or the model logs in this iteration belongs to this iteration.
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        """Call the hooks' ``after_backward``; ``run_step`` does it."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        """Call the hooks' ``after_step``."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration."""
        raise NotImplementedError(f"{type(self).__name__} does not define run_step().")

    def collect_rng_state(self) -> None:
        """Gather every rank's random state, for a checkpoint of this iteration.

        All ranks must call it together; `hooks.PeriodicCheckpointer` does.
        """
        self._collected_rng = (self.iter, comm.gather(get_rng_state()))

    def _rng_of_all_ranks(self) -> list[dict[str, Any]] | None:
        if comm.get_world_size() == 1:
            return [get_rng_state()]
        # state_dict runs in the saving rank alone, so it cannot ask the others.
        if self._collected_rng is not None and self._collected_rng[0] == self.iter:
            return self._collected_rng[1]
        return None

    def _restore_rng(self) -> None:
        """Put the random generators into the loaded state, right before the first iteration."""
        if self._rng_to_restore is not None:
            set_rng_state(self._rng_to_restore)
            self._rng_to_restore = None

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks' states and random states: what a restart needs.

        Hooks are keyed by class name, a second one of a class by ``Name#2``, and so on.
        """
        # At the end `iter` is one past the last iteration that ran.
        ret: dict[str, Any] = {"iteration": self.iter - 1 if self._finished else self.iter}
        states = {key: hook.state_dict() for key, hook in self._keyed_hooks()}
        ret["hooks"] = {key: state for key, state in states.items() if state}
        ret["rng"] = self._rng_of_all_ranks()
        return ret

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; register the hooks first.

        The random states take effect at the first iteration of `train`.
        """
        logger = logging.getLogger(__name__)
        self.iter = state_dict["iteration"]
        self._finished = False
        hooks = dict(self._keyed_hooks())
        for key, value in state_dict.get("hooks", {}).items():
            if key in hooks:
                hooks[key].load_state_dict(value)
            else:
                logger.warning(f"Cannot find the hook {key!r}, its state_dict is ignored.")
        states = state_dict.get("rng")
        if states is None or len(states) != comm.get_world_size():
            saved = "none" if states is None else f"those of {len(states)} processes"
            logger.warning(
                f"Random states are not restored: the checkpoint has {saved}, this job has "
                f"{comm.get_world_size()}. Training goes on, but not with the same random numbers."
            )
            return
        self._rng_to_restore = states[comm.get_rank()]

    def _keyed_hooks(self) -> Iterator[tuple[str, HookBase]]:
        seen: dict[str, int] = {}
        for hook in self._hooks:
            name = type(hook).__qualname__
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), hook


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
        async_write_metrics: gather and log metrics in a thread, one step behind.
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
        self._executor: ThreadPoolExecutor | None = None
        self._pending_metrics: deque[Future[None]] = deque()

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
        losses, loss_dict = _sum_losses(self.model(data))
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        losses.backward()
        self.after_backward()
        self._log_metrics(loss_dict, data_time)
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
        """Write the metrics now, or hand them to the thread that does."""
        if not self.async_write_metrics:
            self._write_metrics(loss_dict, data_time)
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._raise_async_errors(wait=False)
        future = self._executor.submit(self._write_metrics, loss_dict, data_time, iter=self.iter)
        self._pending_metrics.append(future)

    def _raise_async_errors(self, wait: bool) -> None:
        """Raise in the training thread what went wrong in the metrics thread."""
        while self._pending_metrics and (wait or self._pending_metrics[0].done()):
            self._pending_metrics.popleft().result()

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
        """See `detectron2.engine.metrics.write_metrics`."""
        metrics.write_metrics(loss_dict, data_time, cur_iter, prefix)

    def after_train(self) -> None:
        try:
            self._close_metrics_thread()
        finally:
            super().after_train()

    def _close_metrics_thread(self) -> None:
        if self._executor is None:
            return
        try:
            self._raise_async_errors(wait=True)
        finally:
            self._executor.shutdown(wait=True)
            self._executor = None  # a later train() makes a new one
            self._pending_metrics.clear()

    def _restore_rng(self) -> None:
        if self._rng_to_restore is not None:
            # Making the iterator draws a random number. In the interrupted run that happened
            # before the state was saved.
            _ = self._data_loader_iter
        super()._restore_rng()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """`SimpleTrainer` in mixed precision, on any device that torch.autocast knows.

    The forward pass runs in autocast. Gradients are scaled only for float16, whose range is too
    small for them; bfloat16 has that of float32.

    Args:
        model, data_loader, optimizer, gather_metric_period, zero_grad_before_forward,
            async_write_metrics: see `SimpleTrainer`.
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

    def run_step(self) -> None:
        """As in `SimpleTrainer`, with autocast and, for float16, a scaled loss."""
        self._check_training_mode()
        start = time.perf_counter()
        data = self._next_batch()
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with torch.autocast(self.device_type, dtype=self.precision):
            losses, loss_dict = _sum_losses(self.model(data))
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(losses)
        self.after_backward()
        if self.log_grad_scaler and self.grad_scaler is not None:
            self.storage.put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())
        self._log_metrics(loss_dict, data_time)
        self._update()

    def _backward(self, losses: torch.Tensor) -> None:
        (losses if self.grad_scaler is None else self.grad_scaler.scale(losses)).backward()

    def _update(self) -> None:
        if self.grad_scaler is None:
            self.optimizer.step()
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


def _sum_losses(
    output: torch.Tensor | dict[str, torch.Tensor],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss to minimize and the losses to log, from what a model returned."""
    if isinstance(output, torch.Tensor):
        return output, {"total_loss": output}
    return sum(output.values()), output  # type: ignore[return-value]
