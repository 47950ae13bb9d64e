"""Evaluate a model, and its averaged weights, as a config says."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig
from torch import nn

from detrex.engine.ema import ModelEma
from detrex.engine.loaders import instantiate_with

__all__ = ["Evaluation", "do_test"]

logger = logging.getLogger(__name__)

Results = dict[str, Any]


class Evaluation:
    """The test set of a config, read once however often it is used.

    Args:
        cfg: a whole config.
        num_samples: records to keep for pictures.

    Attributes:
        samples: dataset dicts, spread over the test set; none if it has no such records.
        mapper: makes the model's input of a record.
        class_names: by class index, where the data set has names.
    """

    def __init__(self, cfg: DictConfig, num_samples: int = 16) -> None:
        test = cfg.dataloader.test
        dataset = instantiate(test.get("dataset"))
        records = dataset if isinstance(dataset, list) else []
        self.train_cfg = cfg.train
        self.samples = records[:: max(len(records) // num_samples, 1)][:num_samples]
        self.mapper = instantiate(test.get("mapper"))
        self.loader = instantiate_with(test, dataset=dataset)
        self.evaluator = instantiate(cfg.dataloader.evaluator)
        self.class_names = _class_names(cfg.dataloader.evaluator)

    def run(
        self, model: nn.Module, ema: ModelEma | None = None, eval_only: bool = False
    ) -> Results:
        """Evaluate the model; with ``ema``, its averaged weights too.

        Args:
            model: its present weights.
            ema: its averaged weights, if there are any.
            eval_only: nothing is trained, so ``train.model_ema.use_ema_weights_for_eval_only``
                counts: the averaged weights alone are evaluated.

        Returns:
            (in the main process) results by task, such as ``{"bbox": {"AP": 40.2, ...}}``; those of
            the averaged weights are under ``"ema"``, or take this place if they alone count.
        """
        if ema is None:
            return self._run_once(model, "")
        if eval_only and self.train_cfg.model_ema.use_ema_weights_for_eval_only:
            with ema.applied():
                return self._run_once(model, " of the averaged weights")
        results = self._run_once(model, "")
        with ema.applied():
            averaged = self._run_once(model, " of the averaged weights")
        return {**results, "ema": averaged} if averaged else results

    def _run_once(self, model: nn.Module, which: str) -> Results:
        results = inference_on_dataset(model, self.loader, self.evaluator)
        if comm.is_main_process() and results:
            logger.info("Evaluation%s:", which)
            print_csv_format(results)
        return dict(results or {})


def _class_names(node: Any) -> list[str] | None:
    """Names of the classes of the data set that the (first) evaluator is for."""
    nodes = node if isinstance(node, ListConfig) else [node]
    named = [n for n in nodes if n.get("dataset_name")]
    name = instantiate(named[0].dataset_name) if named else None
    return MetadataCatalog.get(name).get("thing_classes") if name else None


def do_test(cfg: DictConfig, model: nn.Module, ema: ModelEma | None = None) -> Results:
    """Evaluate ``model`` on the test set of ``cfg``; see ``Evaluation.run``."""
    return Evaluation(cfg).run(model, ema)
