"""The command line of ``tools/train_net.py``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import torch
from detectron2.engine import default_argument_parser, launch

from detrex.config import load_config
from detrex.engine.errors import SetupError, setup_errors
from detrex.engine.train import run

__all__ = ["argument_parser", "check_processes", "main"]

_EPILOG = """
Examples:

train, with a GPU if there is one:
    $ train_net.py --config-file config.py train.max_iter=1000 model.num_classes=3

continue a run that was stopped:
    $ train_net.py --config-file config.py --resume train.output_dir=output/run

evaluate a checkpoint:
    $ train_net.py --config-file config.py --eval-only train.init_checkpoint=model.pth

on 8 GPUs:
    $ train_net.py --config-file config.py --num-gpus 8
"""


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's options: --config-file, --resume, --eval-only, --num-gpus, ..., key=value."""
    return default_argument_parser(epilog=_EPILOG)


def check_processes(args: argparse.Namespace) -> None:
    """Check the options that say which processes there are, before any is started.

    Raises:
        ValueError: they don't fit each other or this machine.
    """
    if "LOCAL_RANK" in os.environ:  # torchrun says which processes there are
        return
    machines, rank, url = args.num_machines, args.machine_rank, args.dist_url
    if not 0 <= rank < machines:
        raise ValueError(
            f"--machine-rank {rank}: with --num-machines {machines} it is between 0 and "
            f"{machines - 1}, another one on each machine."
        )
    if machines > 1 and url == "auto":
        raise ValueError(
            "several machines need an address that all of them reach, the same on each: "
            "--dist-url tcp://HOST_OF_MACHINE_0:FREE_PORT."
        )
    if url != "auto" and not url.startswith(("tcp://", "file://", "env://")):
        raise ValueError(f"--dist-url {url}: it is auto or begins with tcp:// or file://.")
    available = torch.cuda.device_count()
    if available and args.num_gpus > available:
        raise ValueError(
            f"--num-gpus {args.num_gpus}: this machine has {available}; ask for at most as many."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Train or evaluate; ends the program with one sentence if something is not right.

    Args:
        argv: arguments without the program's name; default: those of this process.
    """
    args = argument_parser().parse_args(argv)
    try:
        if args.num_gpus * args.num_machines > 1:
            # Each process does this too; here a mistake shows before any is started.
            with setup_errors():
                check_processes(args)
                load_config(args.config_file, args.opts, args.eval_only)
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except SetupError as e:
        raise SystemExit(f"error: {e}") from e
    except KeyboardInterrupt as e:
        raise SystemExit(130) from e
