"""What most training scripts do first: arguments, logging, seeds, writers, DDP."""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from fvcore.common.config import CfgNode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "DefaultPredictor",
    "DefaultTrainer",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
]


class _Parser(argparse.ArgumentParser):
    """A parser whose ``opts`` may stand before, between and after the options."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        return self.parse_intermixed_args(args, namespace)


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The command-line arguments that training scripts share.

    Args:
        epilog: text after the help.

    Returns:
        A parser for --config-file, --resume, --eval-only, --num-gpus, --num-machines,
        --machine-rank, --dist-url and any number of overrides (``args.opts``), which may be
        mixed with the options.
    """
    parser = _Parser(
        epilog=epilog or _example(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="path to config file")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in the output folder, if there is one",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument("--num-gpus", type=int, default=1, help="number of gpus *per machine*")
    parser.add_argument("--num-machines", type=int, default=1, help="total number of machines")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="the rank of this machine (unique per machine)"
    )
    parser.add_argument(
        "--dist-url",
        default="auto",
        help="where processes meet, as tcp://host:port; a free port of this machine by default, "
        "needed for several machines",
    )
    parser.add_argument(
        "opts",
        help="changes to the config: key=value pairs, as train.max_iter=1000",
        default=[],
        nargs="*",
    )
    return parser


def _example() -> str:
    script = sys.argv[0]
    return f"""Examples:

Run on one machine:
    $ {script} --config-file cfg.py --num-gpus 8

Change some values of the config:
    $ {script} --config-file cfg.py train.init_checkpoint=/path/to/weights.pth

Run on several machines:
    (machine 0)$ {script} --machine-rank 0 --num-machines 2 --dist-url <URL> [--other-flags]
    (machine 1)$ {script} --machine-rank 1 --num-machines 2 --dist-url <URL> [--other-flags]
"""


def _try_get_key(cfg: Any, *keys: str, default: Any = None) -> Any:
    """The first of the dotted keys that the config has and that is not None, else the default."""
    for key in keys:
        value = cfg
        for part in key.split("."):
            value = value[part] if isinstance(value, Mapping) and part in value else None
        if value is not None:
            return value
    return default


def _highlight(code: str, filename: str) -> str:
    """Color source text for a terminal, if pygments is installed. Scripts use it too."""
    try:
        import pygments
        from pygments.formatters import Terminal256Formatter
        from pygments.lexers import Python3Lexer, YamlLexer
    except ImportError:
        return code
    lexer = Python3Lexer() if filename.endswith(".py") else YamlLexer()
    return pygments.highlight(code, lexer, Terminal256Formatter(style="monokai"))


def default_setup(cfg: Any, args: Any) -> None:
    """Start a job: output folder, loggers, a record of what is run, seeds.

    - Logs to the console and to ``log.txt`` in the output folder (``log.txt.rank<N>`` for other
      ranks), environment and arguments first.
    - Saves the full config as ``config.yaml`` there.
    - Seeds all random generators: seed + rank, or differently each time if the seed is negative
      or missing.

    Args:
        cfg: a LazyConfig tree (``train.output_dir``, ``train.seed``, ``train.cudnn_benchmark``)
            or a CfgNode (``OUTPUT_DIR``, ``SEED``, ``CUDNN_BENCHMARK``). What it lacks is skipped.
        args: parsed arguments; ``config_file`` and ``eval_only`` are used if it has them.
    """
    output_dir = _try_get_key(cfg, "OUTPUT_DIR", "output_dir", "train.output_dir")
    if comm.is_main_process() and output_dir:
        PathManager.mkdirs(output_dir)
    rank = comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)
    logger.info(f"Rank of current process: {rank}. World size: {comm.get_world_size()}")
    logger.info("Environment info:\n" + collect_env_info())
    logger.info("Command line arguments: " + str(args))
    _log_config_file(logger, getattr(args, "config_file", ""))
    if comm.is_main_process() and output_dir:
        _save_config(cfg, os.path.join(output_dir, "config.yaml"), logger)
    seed = _try_get_key(cfg, "SEED", "train.seed", default=-1)
    seed_all_rng(None if seed < 0 else seed + rank)
    if not getattr(args, "eval_only", False):
        # Finding the fastest kernels does not pay for the many image sizes of an evaluation.
        torch.backends.cudnn.benchmark = bool(
            _try_get_key(cfg, "CUDNN_BENCHMARK", "train.cudnn_benchmark", default=False)
        )


def _log_config_file(logger: logging.Logger, config_file: str | None) -> None:
    if not config_file:
        return
    with PathManager.open(config_file, "r") as f:
        text = f.read()
    # Not highlighted: the same text goes to log.txt, where color codes are noise.
    logger.info(f"Contents of args.config_file={config_file}:\n{text}")


def _save_config(cfg: Any, path: str, logger: logging.Logger) -> None:
    if isinstance(cfg, CfgNode):
        logger.info(f"Running with full config:\n{cfg.dump()}")
        temporary = path + ".tmp"
        with open(temporary, "w") as f:
            f.write(cfg.dump())
        os.replace(temporary, path)
    else:
        from detectron2.config import LazyConfig  # late: config does not need the engine

        LazyConfig.save(cfg, path)
    logger.info(f"Full config saved to {path}")


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Writers to the console, to ``metrics.json`` and to TensorBoard files.

    Args:
        output_dir: the folder for both; made if needed.
        max_iter: last iteration, for the time left.
    """
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **kwargs: Any) -> Any:
    """Wrap a model in DistributedDataParallel if there is more than one process.

    Args:
        model: on this process's GPU, or on the CPU.
        fp16_compression: send gradients as float16.
        kwargs: for DistributedDataParallel.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cuda":
        kwargs.setdefault("device_ids", [device.index])
    known = inspect.signature(DistributedDataParallel).parameters
    if "broadcast_buffers" in kwargs and "forward_sync_buffers" in known:
        # Its name in torch >= 2.13, which warns of the one that configs have.
        kwargs["forward_sync_buffers"] = kwargs.pop("broadcast_buffers")
    ddp = DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        ddp.register_comm_hook(state=None, hook=default_hooks.fp16_compress_hook)
    return ddp


def _refuse(name: str, instead: str) -> NoReturn:
    raise NotImplementedError(
        f"{name} builds everything from a yacs config, which this pure-Python detectron2 does not "
        f"have. {instead} The full detectron2 (github.com/facebookresearch/detectron2) has it."
    )


class DefaultTrainer:
    """Not part of this package: constructing one says what to use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse("DefaultTrainer", "Use SimpleTrainer or AMPTrainer with a LazyConfig.")


class DefaultPredictor:
    """Not part of this package: constructing one says what to use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse(
            "DefaultPredictor",
            "Build the model with instantiate(cfg.model), load weights with "
            "DetectionCheckpointer, and call it on a list of dicts.",
        )
