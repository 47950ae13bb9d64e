"""The command line of `tools/train_net.py`."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.engine import launch

from detrex.engine.config import argument_parser, find_config_file, load_config
from detrex.engine.errors import SetupError, explained
from detrex.engine.train import run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Train or evaluate; ends the program with one sentence if something is not right.

    Args:
        argv: arguments without the program's name; default: those of this process.
    """
    args = argument_parser().parse_args(argv)
    try:
        if args.num_gpus * args.num_machines > 1:
            # Each process does this too; here a mistake shows before any is started.
            with explained():
                load_config(find_config_file(args.config_file), args.opts, args.eval_only)
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
