"""The training loop and its hooks. Exported by ``detectron2.engine.train_loop``."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.utils import comm
from detectron2.utils.env import get_rng_state, set_rng_state
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import _log_api_usage

__all__ = ["HookBase", "TrainerBase"]


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

    trainer: TrainerBase = None  # type: ignore[assignment]
    """Set by ``TrainerBase.register_hooks``."""

    saves_every: int = 0
    """The period of the checkpoints that the hook saves, in iterations; 0 if it saves none.

    The random states of all ranks are gathered for them, also where only the main process has
    the hook, as is common.
    """

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
        """Take back what ``state_dict`` gave."""
        raise NotImplementedError(f"{type(self).__name__} has a state but cannot load one.")


class TrainerBase:
    """A loop with hooks; subclasses say in ``run_step`` what an iteration is.

    Attributes:
        iter: the current iteration, from 0; equals ``max_iter`` in ``after_train`` once training
            has come to its end.
        start_iter: the iteration at which ``train`` started.
        max_iter: the iteration at which training ends (exclusive).
        storage: the metrics; open during ``train``.
    """

    storage: EventStorage

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int = 0
        self._finished = False
        self._checkpoint_periods: set[int] = set()
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
        self._checkpoint_periods = self._periods_of_all_ranks()
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
        logger = logging.getLogger("detectron2.engine.train_loop")
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
        logger = logging.getLogger("detectron2.engine.train_loop")
        if isinstance(error, Exception):
            logger.exception(f"Exception during training, at iteration {self.iter}:")
        else:
            name = type(error).__name__
            logger.warning(f"Training was stopped by {name}, at iteration {self.iter}.")
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
        if self._finished:
            self._collect_rng_state()
        first_error: Exception | None = None
        for hook in self._hooks:
            try:
                hook.after_train()
            except Exception as e:
                if first_error is None:
                    first_error = e
                else:
                    logging.getLogger("detectron2.engine.train_loop").exception(
                        f"Also failed in after_train: {hook}"
                    )
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
        done = self.iter + 1
        if done == self.max_iter or any(done % period == 0 for period in self._checkpoint_periods):
            self._collect_rng_state()
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration."""
        raise NotImplementedError(f"{type(self).__name__} does not define run_step().")

    def _periods_of_all_ranks(self) -> set[int]:
        own = {hook.saves_every for hook in self._hooks if hook.saves_every > 0}
        return set().union(*comm.all_gather(own))

    def _collect_rng_state(self) -> None:
        """Gather every rank's random state, for a checkpoint of this iteration."""
        if self._checkpoint_periods and comm.get_world_size() > 1:
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
        # At the end ``iter`` is one past the last iteration that ran.
        ret: dict[str, Any] = {"iteration": self.iter - 1 if self._finished else self.iter}
        states = {key: hook.state_dict() for key, hook in self._keyed_hooks()}
        ret["hooks"] = {key: state for key, state in states.items() if state}
        ret["rng"] = self._rng_of_all_ranks()
        return ret

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave; register the hooks first.

        The random states take effect at the first iteration of ``train``.
        """
        logger = logging.getLogger("detectron2.engine.train_loop")
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
