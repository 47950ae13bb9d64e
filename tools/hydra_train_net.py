#!/usr/bin/env python3
"""Train or evaluate with arguments that hydra composes, here or as a job on a Slurm cluster.

    python tools/hydra_train_net.py num_gpus=8 config_file=projects/detr/configs/detr_r50_300ep.py \
        +model.num_queries=50
    python tools/hydra_train_net.py num_machines=2 num_gpus=8 config_file=config.py \
        +model.num_queries=50 +slurm=research slurm.partition=mine

Arguments, as key=value, are those of configs/hydra/train_args.yaml. What begins with + changes the
config as without hydra: +model.num_queries=50 (++train.note=hello adds a key). With
auto_output_dir=true the run writes into a folder that is named after its arguments and the time.

+slurm=NAME submits the run with submitit (pip install submitit), as configs/hydra/slurm/NAME.yaml
says; a job that is preempted or out of time goes on as a new one, with --resume. YAML files are
data: nothing in them is run.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, open_dict, read_write

from detrex.engine import main as train
from detrex.engine.errors import usage_errors

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "hydra"
GROUPS = ("slurm",)
LONGEST_NAME = 200  # characters of a folder's name; file systems take 255 bytes


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-dir", default=str(FOLDER), help="folder of the yaml files; default: configs/hydra"
    )
    parser.add_argument("--config-name", default="train_args", help="default: train_args")
    parser.add_argument(
        "--dry-run", action="store_true", help="only print the command that would run"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="see above")
    return parser


@dataclass(frozen=True)
class Job:
    """A call of ``tools/train_net.py``, on one machine or as a part of a job on several.

    Attributes:
        arguments: of ``tools/train_net.py``, but for those below.
        meeting: how processes of a cluster's job meet, "tcp" or a ``file://`` address.
        port: for "tcp"; None takes one that follows from the job's number.
        resume: go on from the last checkpoint.
    """

    arguments: tuple[str, ...]
    meeting: str = "tcp"
    port: int | None = None
    resume: bool = False

    def command(self) -> list[str]:
        return [*(["--resume"] if self.resume else []), *self.arguments]

    def __call__(self) -> None:
        """What submitit runs once on each machine."""
        import submitit

        here = submitit.JobEnvironment()
        url = self.meeting
        if here.num_nodes == 1:
            url = "auto"
        elif url == "tcp":
            number = int("".join(c for c in here.job_id if c.isdigit()) or 0)
            url = f"tcp://{here.hostnames[0]}:{self.port or 10000 + number % 20000}"
        train([*self.command(), "--machine-rank", str(here.node), "--dist-url", url])

    def checkpoint(self) -> Any:
        """What submitit runs when a job is preempted or out of time: the same again, resumed."""
        import submitit

        return submitit.helpers.DelayedSubmission(replace(self, resume=True))


def composed(args: argparse.Namespace) -> tuple[DictConfig, list[str]]:
    """The arguments that hydra composes, and the changes to the config.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: hydra cannot make sense of an argument.
    """
    folder = Path(args.config_dir).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"--config-dir {args.config_dir} does not exist.")
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            own = {*compose(args.config_name), *GROUPS}
            cfg = compose(args.config_name, args.overrides, return_hydra_config=True)
    except yaml.YAMLError as e:
        said = str(e).splitlines()[0]
        raise ValueError(f"{folder}/{args.config_name}.yaml is not read: {said}.") from e
    except OverrideParseException as e:
        raise ValueError(
            f"{e.override} cannot be read; put text with special characters in quotes, as in "
            "\"key='...'\"."
        ) from e
    except HydraException as e:
        said = " ".join(str(e).partition("Config search path")[0].split())
        # Its advice to write + is left out: here that is for changes to the config.
        raise ValueError(f"{said.partition(' To append')[0].rstrip('.')}.") from e
    _settle_folder(cfg)
    changes = []
    for override in args.overrides:
        name = override.lstrip("+").split("=")[0]
        if override.startswith("+") and "/" not in name and name.split(".")[0] not in own:
            changes.append(override[1:])
    return cfg, changes


def _settle_folder(cfg: DictConfig) -> None:
    """Make ``hydra.run.dir`` one folder, whatever paths are among the arguments, and one time."""
    with read_write(cfg), open_dict(cfg):
        job = cfg.hydra.job
        job.override_dirname = job.override_dirname.replace("/", "_")[:LONGEST_NAME] or "default"
        cfg.hydra.run.dir = os.path.abspath(cfg.hydra.run.dir)


def train_arguments(cfg: DictConfig, changes: Sequence[str]) -> list[str]:
    """Arguments of ``tools/train_net.py``, but for --resume and how processes meet."""
    config = str(cfg.config_file)
    arguments = ["--config-file", os.path.abspath(config) if os.path.exists(config) else config]
    arguments += ["--num-gpus", str(cfg.num_gpus), "--num-machines", str(cfg.num_machines)]
    arguments += ["--eval-only"] if cfg.eval_only else []
    if cfg.auto_output_dir:
        folder = str(cfg.hydra.run.dir).replace("\\", "\\\\").replace("'", "\\'")
        arguments.append(f"train.output_dir='{folder}'")
    return [*arguments, *map(str, cfg.opts), *changes]


def submit(cfg: DictConfig, job: Job) -> str:
    """Hand a job over to Slurm; returns its number.

    Raises:
        ImportError: submitit is not installed.
        ValueError: there is no Slurm here, or no way for processes to meet.
    """
    try:
        import submitit
    except ImportError as e:
        raise ImportError("+slurm=... needs submitit: pip install submitit.") from e
    slurm = cfg.slurm
    if slurm.ddp_comm_mode not in ("tcp", "file"):
        raise ValueError(f"slurm.ddp_comm_mode={slurm.ddp_comm_mode}: it is tcp or file.")
    folder = Path(slurm.job_dir or cfg.hydra.run.dir).absolute()
    if slurm.ddp_comm_mode == "file":
        share = Path(slurm.share_root)
        if not share.is_dir():
            raise ValueError(f"slurm.share_root={share} does not exist; all machines need it.")
        job = replace(job, meeting=f"file://{share.resolve()}/meeting_{os.getpid()}_{folder.name}")
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster="slurm")
    except RuntimeError as e:
        raise ValueError(f"jobs can't be submitted here: {e}; leave +slurm=... out.") from e
    parameters = {
        "name": slurm.job_name,
        "nodes": slurm.nodes,
        "tasks_per_node": 1,  # which starts a process for each GPU
        "gpus_per_node": slurm.ngpus,
        "cpus_per_task": slurm.cpus_per_task * slurm.ngpus,
        "timeout_min": 60 * slurm.timeout,
        "slurm_partition": slurm.partition,
        "slurm_exclude": slurm.exclude_node,
        "slurm_comment": slurm.comment,
        "slurm_additional_parameters": {"quotatype": slurm.quotatype} if slurm.quotatype else None,
    }
    executor.update_parameters(**{k: v for k, v in parameters.items() if v is not None})
    return str(executor.submit(job).job_id)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or submit what the command line asks for."""
    args = parser().parse_args(arguments)
    with usage_errors():
        cfg, changes = composed(args)
        slurm = cfg.get("slurm")
        port = slurm.master_port if slurm else None
        job = Job(tuple(train_arguments(cfg, changes)), port=port, resume=bool(cfg.resume))
        if args.dry_run:
            print(shlex.join(["tools/train_net.py", *job.command()]))
            return
        if slurm:
            print(f"Submitted job {submit(cfg, job)}; its logs are in", end=" ")
            print(slurm.job_dir or cfg.hydra.run.dir)
            return
    train([*job.command(), "--machine-rank", str(cfg.machine_rank), "--dist-url", cfg.dist_url])


if __name__ == "__main__":
    main()
