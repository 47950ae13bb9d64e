"""Train a model as a config says, from pre-flight checks to the final report."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import create_ddp_model, default_setup, default_writers, hooks
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from detrex.data import check_dataloaders
from detrex.engine.build import (
    build_ema,
    build_evaluated_model,
    build_filled_model,
    build_model,
    build_resumed_model,
    load_ema,
)
from detrex.engine.checks import (
    check_checkpoint_exists,
    check_images,
    check_optimizer,
    check_output_dir,
    last_checkpoint,
    local_checkpoint,
)
from detrex.engine.class_names import ClassNames
from detrex.engine.config import find_config_file, load_config
from detrex.engine.ema import EmaHook
from detrex.engine.errors import explained
from detrex.engine.evaluation import Evaluation, Results
from detrex.engine.hooks import BestCheckpointer, StopOnSignal
from detrex.engine.loaders import TrainStream
from detrex.engine.report import draw_contact_sheet, draw_curves, summary
from detrex.engine.trainer import Trainer, amp_dtype
from detrex.engine.wandb_writer import WandbWriter
from detrex.utils.memory import keep_freed_memory

__all__ = ["do_train", "evaluate_only", "run"]

logger = logging.getLogger("detrex.engine")


def run(args: argparse.Namespace) -> Results:
    """What `tools/train_net.py` does in each process.

    Args:
        args: `config_file`, `resume`, `eval_only` and `opts`, as `argument_parser()` gives them.

    Returns:
        The results of the last evaluation, by task.

    Raises:
        SetupError: something is wrong that could be known before the start.
        TrainingStopped: stopped by Ctrl-C, after saving a checkpoint.
    """
    with explained():
        args.config_file = find_config_file(args.config_file)
        cfg = load_config(args.config_file, args.opts, args.eval_only)
        if not args.resume:
            check_checkpoint_exists(cfg.train.init_checkpoint)
        if comm.is_main_process():
            check_output_dir(cfg.train.output_dir, args.resume or args.eval_only)
        comm.synchronize()
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="detrex")
        default_setup(cfg, args)
        if torch.device(cfg.train.device).type == "cpu":
            keep_freed_memory()
        if comm.is_main_process():
            check_dataloaders(
                cfg.dataloader,
                num_classes=cfg.model.get("num_classes"),
                num_queries=cfg.model.get("num_queries"),
                splits=("test",) if args.eval_only else ("train", "test"),
            )
        comm.synchronize()
    return evaluate_only(cfg) if args.eval_only else do_train(cfg, args.resume)


def evaluate_only(cfg: DictConfig) -> Results:
    """Evaluate `train.init_checkpoint`, or else the last checkpoint of `train.output_dir`.

    Raises:
        SetupError: there is neither, or it does not fit the model.
    """
    with explained():
        path = local_checkpoint(cfg.train.init_checkpoint) or last_checkpoint(cfg.train.output_dir)
        if not path:
            raise FileNotFoundError(
                f"nothing to evaluate: train.output_dir={cfg.train.output_dir} has no checkpoint; "
                "name one with train.init_checkpoint=..."
            )
        evaluation = Evaluation(cfg)
        model = build_evaluated_model(cfg, path, evaluation.class_names)
        check_images(model, cfg.dataloader)
        ema = build_ema(cfg, model)
        if ema is not None:
            # Averaged weights are only in checkpoints of our own; others are their own average.
            load_ema(ema, path)
    results = evaluation.run(model, ema)
    if comm.is_main_process():
        draw_contact_sheet(cfg.train.output_dir, evaluation, model)
        logger.info("Evaluated %s.\n%s", path, summary(cfg.train.output_dir, results))
    return results


def do_train(cfg: DictConfig, resume: bool = False) -> Results:
    """Train, evaluate, and leave a report in `train.output_dir`.

    Args:
        cfg: a complete config (`load_config`).
        resume: continue from the last checkpoint of `train.output_dir`, if it has one.

    Returns:
        The results of the last evaluation, by task.

    Raises:
        SetupError: the model, the optimizer or the checkpoint cannot be made or used.
        TrainingStopped: stopped by Ctrl-C or SIGTERM, after saving a checkpoint.
    """
    with explained():
        training = TrainingRun(cfg, resume)
        start_iter = training.start()
    try:
        training.trainer.train(start_iter, cfg.train.max_iter)
    except KeyboardInterrupt as e:
        if training.checkpointer.has_checkpoint():
            logger.info("%s; the same command with --resume continues", e or "interrupted")
        raise
    if comm.is_main_process():
        draw_curves(cfg.train.output_dir)
        draw_contact_sheet(cfg.train.output_dir, training.evaluation, training.model)
        logger.info("Training is done.\n%s", summary(cfg.train.output_dir, training.results))
    return training.results


class TrainingRun:
    """Everything that a config describes, built and connected.

    Args:
        cfg: a complete config (`load_config`).
        resume: continue from the last checkpoint of `train.output_dir`, if it has one.
    """

    def __init__(self, cfg: DictConfig, resume: bool = False) -> None:
        self.cfg = cfg
        self.results: Results = {}
        self.resumed_from = last_checkpoint(cfg.train.output_dir) if resume else ""
        if resume and not self.resumed_from:
            logger.warning(
                "--resume: %s has no checkpoint yet, so the training starts from the beginning",
                cfg.train.output_dir,
            )
        self.evaluation = Evaluation(cfg)
        self.model = self._build_model()
        check_images(self.model, cfg.dataloader)
        self.ema = build_ema(cfg, self.model)
        self.stream = TrainStream(cfg.dataloader.train, cfg.train.seed, cfg.train.grad_accum_steps)
        self.trainer = self._build_trainer()
        extras: dict[str, Any] = {"trainer": self.trainer, "data": self.stream}
        if self.ema is not None:
            extras["ema_state"] = self.ema
        if self.evaluation.class_names:
            extras["classes"] = ClassNames(self.evaluation.class_names)
        self.checkpointer = DetectionCheckpointer(self.model, cfg.train.output_dir, **extras)
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
        self.results = self.evaluation.run(self.model, self.ema)
        return self.results

    def _build_model(self) -> nn.Module:
        initial = local_checkpoint(self.cfg.train.init_checkpoint)
        if self.resumed_from:
            return build_resumed_model(self.cfg, self.resumed_from)
        if not initial:
            return build_model(self.cfg)
        return build_filled_model(self.cfg, initial, self.evaluation.class_names)

    def _build_trainer(self) -> Trainer:
        train = self.cfg.train
        self.cfg.optimizer.params.model = self.model
        optimizer = instantiate(self.cfg.optimizer)
        check_optimizer(self.model, optimizer)
        ddp = dict(train.ddp)
        if torch.device(train.device).type == "cpu":
            ddp.setdefault("device_ids", None)  # those of GPUs otherwise
        return Trainer(
            create_ddp_model(self.model, **ddp),
            (),  # the data is opened when it is known where to start
            optimizer,
            amp=train.amp.enabled,
            amp_dtype=amp_dtype(train.amp.dtype, torch.device(train.device)),
            clip_grad_params=train.clip_grad.params if train.clip_grad.enabled else None,
            grad_accum_steps=train.grad_accum_steps,
            seed=lambda: self.stream.seed,
        )

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
