"""Train or evaluate a model as a config says, step by step from top to bottom."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import default_writers, hooks
from detectron2.utils import comm
from omegaconf import DictConfig

from detrex.config import load_config
from detrex.engine.build import (
    build_ema,
    build_evaluated_model,
    build_optimizer,
    build_trained_model,
    checkpoint_to_evaluate,
    distributed,
    last_checkpoint,
)
from detrex.engine.class_names import ClassNames
from detrex.engine.ema import EmaHook
from detrex.engine.errors import setup_errors
from detrex.engine.evaluation import Evaluation, Results
from detrex.engine.hooks import BestCheckpointer, StopOnSignal
from detrex.engine.loaders import TrainStream
from detrex.engine.preflight import check_built, preflight
from detrex.engine.report import report_evaluation, report_training
from detrex.engine.trainer import Trainer, step_options
from detrex.utils.allocator import keep_freed_memory
from detrex.utils.events import WandbWriter

__all__ = ["TrainingRun", "do_train", "evaluate_only", "run"]

logger = logging.getLogger("detrex.engine")


def run(args: argparse.Namespace) -> Results:
    """What ``tools/train_net.py`` does in each process.

    Args:
        args: ``config_file``, ``resume``, ``eval_only`` and ``opts``, as ``argument_parser()``
            gives them.

    Returns:
        The results of the last evaluation, by task.

    Raises:
        SetupError: something is wrong that could be known before the start.
        TrainingStopped: stopped by Ctrl-C, after saving a checkpoint.
    """
    with setup_errors():
        cfg = load_config(args.config_file, args.opts, args.eval_only)
        preflight(cfg, args)
    if torch.device(cfg.train.device).type == "cpu":
        keep_freed_memory()
    return evaluate_only(cfg) if args.eval_only else do_train(cfg, args.resume)


def evaluate_only(cfg: DictConfig) -> Results:
    """Evaluate ``train.init_checkpoint``, or else the last checkpoint of ``train.output_dir``.

    Raises:
        SetupError: there is neither, or it does not fit the model.
    """
    with setup_errors():
        path = checkpoint_to_evaluate(cfg)
        evaluation = Evaluation(cfg)
        model = build_evaluated_model(cfg, path, evaluation.class_names)
        check_built(model, cfg.dataloader)
        ema = build_ema(cfg, model, path)
    results = evaluation.run(model, ema, eval_only=True)
    if comm.is_main_process():
        report_evaluation(cfg.train.output_dir, path, evaluation, model, results)
    return results


def do_train(cfg: DictConfig, resume: bool = False) -> Results:
    """Train, evaluate, and leave a report in ``train.output_dir``.

    Args:
        cfg: a complete config (``load_config``).
        resume: continue from the last checkpoint of ``train.output_dir``, if it has one.

    Returns:
        The results of the last evaluation, by task.

    Raises:
        SetupError: the model, the optimizer or the checkpoint cannot be made or used.
        TrainingStopped: stopped by Ctrl-C or SIGTERM, after saving a checkpoint.
    """
    with setup_errors():
        training = TrainingRun(cfg, resume)
        start_iter = training.start()
    try:
        training.trainer.train(start_iter, cfg.train.max_iter)
    except KeyboardInterrupt as e:
        if training.checkpointer.has_checkpoint():
            logger.info("%s; the same command with --resume continues", e or "interrupted")
        raise
    if comm.is_main_process():
        report_training(cfg.train.output_dir, training.evaluation, training.model, training.results)
    return training.results


class TrainingRun:
    """Everything that a config describes, built and connected.

    Args:
        cfg: a complete config (``load_config``).
        resume: continue from the last checkpoint of ``train.output_dir``, if it has one.
    """

    def __init__(self, cfg: DictConfig, resume: bool = False) -> None:
        self.cfg = cfg
        self.results: Results = {}
        self.resumed_from = last_checkpoint(cfg.train.output_dir) if resume else ""
        if resume and not self.resumed_from:
            logger.warning(
                "--resume: %s has no checkpoint yet, so the training starts from the beginning.",
                cfg.train.output_dir,
            )
        self.evaluation = Evaluation(cfg)
        self.model = build_trained_model(cfg, self.resumed_from, self.evaluation.class_names)
        self.ema = build_ema(cfg, self.model)
        self.stream = TrainStream(cfg.dataloader.train, cfg.train.seed, cfg.train.grad_accum_steps)
        self.optimizer = build_optimizer(cfg, self.model)
        check_built(self.model, cfg.dataloader, self.optimizer)
        self.trainer = self._build_trainer()
        self.checkpointer = self._build_checkpointer()
        self.trainer.register_hooks(self._build_hooks())

    def start(self) -> int:
        """Load the state to resume from and open the data; returns the first iteration."""
        start_iter = 0
        if self.resumed_from:
            self.checkpointer.resume_or_load("", resume=True)
            start_iter = self.trainer.iter + 1
        self.trainer.reset_data_loader(lambda: self.stream.loader(start_iter))
        return start_iter

    def evaluate(self) -> Results:
        """Evaluate the present weights and keep the results."""
        self.results = self.evaluation.run(self.model, self.ema)
        return self.results

    def _build_trainer(self) -> Trainer:
        train = self.cfg.train
        return Trainer(
            distributed(self.cfg, self.model),
            (),  # the data is opened when it is known where to start
            self.optimizer,
            grad_accum_steps=train.grad_accum_steps,
            seed=lambda: self.stream.seed,
            **step_options(train, torch.device(train.device)),
        )

    def _build_checkpointer(self) -> DetectionCheckpointer:
        extras: dict[str, Any] = {"trainer": self.trainer, "data": self.stream}
        if self.ema is not None:
            extras["ema_state"] = self.ema
        if self.evaluation.class_names:
            extras["classes"] = ClassNames(self.evaluation.class_names)
        return DetectionCheckpointer(self.model, self.cfg.train.output_dir, **extras)

    def _build_hooks(self) -> list[Any]:
        train, main = self.cfg.train, comm.is_main_process()
        # All processes have this hook, since they stop together. Only the main one writes, so only
        # it may delete.
        periodic = hooks.PeriodicCheckpointer(
            self.checkpointer,
            train.checkpointer.period,
            max_to_keep=train.checkpointer.max_to_keep if main else None,
        )
        best = BestCheckpointer(train.eval_period, self.checkpointer, train.best_checkpoint.metric)

        def save_now() -> None:
            periodic.period = 1
            periodic.after_step()

        return [
            hooks.IterationTimer(),
            EmaHook(self.ema) if self.ema is not None else None,
            hooks.LRScheduler(scheduler=instantiate(self.cfg.lr_multiplier)),
            periodic,
            hooks.EvalHook(train.eval_period, self.evaluate),
            best if train.best_checkpoint.enabled and main else None,  # only it has the metrics
            hooks.PeriodicWriter(self._writers(), train.log_period) if main else None,
            StopOnSignal(save_now, agree_period=train.log_period),
        ]

    def _writers(self) -> list[Any]:
        train = self.cfg.train
        writers = default_writers(train.output_dir, train.max_iter)
        if train.wandb.enabled:
            writers.append(WandbWriter(self.cfg))
        return writers
