"""The protocol of evaluators and the loop that feeds them."""

from __future__ import annotations

import datetime
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.utils.comm import get_world_size, is_main_process
from torch import nn

logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Base class of evaluators: sees all inputs and outputs of a dataset, then sums up."""

    def reset(self) -> None:
        """Forget everything; called before a round of evaluation."""

    def process(self, inputs: Any, outputs: Any) -> None:
        """Take in one batch.

        Args:
            inputs: what the model was given, usually a list of dicts, one per image.
            outputs: what the model returned, an iterable in the same order.
        """

    def evaluate(self) -> Mapping[str, Any] | None:
        """Sum up.

        Returns:
            a dict from task names to dicts of metrics, for example ``{"bbox": {"AP50": 80.0}}``;
            only the main process needs to return it.
        """


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators behind the interface of one; their task names must differ."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        results: dict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if not is_main_process() or result is None:
                continue
            for task, metrics in result.items():
                assert task not in results, (
                    f"Different evaluators produce results with the same key {task}"
                )
                results[task] = metrics
        return results


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: Iterable[Any],
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], None]] | None = None,
) -> Any:
    """Run a model over a dataset and evaluate what it returns.

    Modules run in evaluation mode, without gradients, and get back the mode they had, also if an
    error ends the loop. The speed and the time left are logged every five seconds.

    Args:
        model: called with each batch.
        data_loader: an iterable of batches with a length.
        evaluator: what to feed; a sequence feeds them all, None only measures the speed.
        callbacks: called without arguments; before the first batch ``"on_start"``, around each
            call of the model ``"before_inference"`` and ``"after_inference"``, after the last
            batch ``"on_end"``.

    Returns:
        what the evaluator returns, an empty dict instead of None (all but the main process).
    """
    total = len(data_loader)  # type: ignore[arg-type]
    logger.info(f"Start inference on {total} batches")
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(list(evaluator or []))
    evaluator.reset()
    calls = dict(callbacks or {})
    timer = _LoopTimer(total)
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        _call(calls, "on_start")
        for index, inputs in enumerate(data_loader):
            timer.lap("data")
            if index == timer.num_warmup:
                timer.restart(first=index)
            _call(calls, "before_inference")
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            _call(calls, "after_inference")
            timer.lap("compute")
            evaluator.process(inputs, outputs)
            timer.lap("eval")
            timer.log_progress(index)
        _call(calls, "on_end")
    timer.log_total()
    results = evaluator.evaluate()
    return {} if results is None else results


def _call(callbacks: Mapping[str, Callable[[], None]], name: str) -> None:
    if name in callbacks:
        callbacks[name]()


class _LoopTimer:
    """Times the parts of an evaluation loop and reports them in detectron2's wording."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.num_warmup = min(5, total - 1)
        self._last_logged = -math.inf
        self.restart(first=0)

    def restart(self, first: int) -> None:
        """Start over at batch ``first``, so that slow ones before it do not count."""
        self._seconds = dict.fromkeys(("data", "compute", "eval"), 0.0)
        self._first = first
        self._start = self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Ascribe the time since the last call to a part of the loop."""
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def log_progress(self, index: int) -> None:
        """Log after batch ``index``, at most every five seconds."""
        num_done = index + 1 - self._first
        data, compute, evaluation = (s / num_done for s in self._seconds.values())
        now = time.perf_counter()
        is_too_early = index < self.num_warmup * 2 and compute <= 5
        if is_too_early or now - self._last_logged < 5:
            return
        self._last_logged = now
        per_iter = (now - self._start) / num_done
        eta = datetime.timedelta(seconds=int(per_iter * (self.total - index - 1)))
        logger.info(
            f"Inference done {index + 1}/{self.total}. Dataloading: {data:.4f} s/iter. "
            f"Inference: {compute:.4f} s/iter. Eval: {evaluation:.4f} s/iter. "
            f"Total: {per_iter:.4f} s/iter. ETA={eta}"
        )

    def log_total(self) -> None:
        """Log the time of the whole loop, warm-up excluded."""
        num_done = max(self.total - self._first, 1)
        times = (
            ("Total inference time", time.perf_counter() - self._start),
            ("Total inference pure compute time", self._seconds["compute"]),
        )
        for name, seconds in times:
            logger.info(
                f"{name}: {datetime.timedelta(seconds=int(seconds))} "
                f"({seconds / num_done:.6f} s / iter per device, on {get_world_size()} devices)"
            )


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while.

    Afterwards each submodule is in the mode it had, so that frozen parts which were in evaluation
    mode during training stay so. This holds also if the block raises.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, training in modes:
            module.training = training
