"""Processes of a training: how many there are, which one this is, and how those of Slurm meet.

For code of the public detrex; ``detectron2.utils.comm`` has the first two as well.
"""

from __future__ import annotations

import builtins
import os
from typing import Any

import torch
import torch.distributed as dist

__all__ = [
    "get_rank",
    "get_world_size",
    "is_dist_avail_and_initialized",
    "setup_for_distributed",
    "slurm_init_distributed_mode",
]


def is_dist_avail_and_initialized() -> bool:
    """Whether this process is one of several that can talk to each other."""
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """How many processes there are, 1 if this one is alone."""
    return dist.get_world_size() if is_dist_avail_and_initialized() else 1


def get_rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if is_dist_avail_and_initialized() else 0


def setup_for_distributed(is_master: bool) -> None:
    """Let ``print`` write in the main process only; ``print(..., force=True)`` always writes."""
    write = getattr(builtins.print, "always", builtins.print)

    def print_in_main_process(*values: object, force: bool = False, **options: Any) -> None:
        if is_master or force:
            write(*values, **options)

    print_in_main_process.always = write  # type: ignore[attr-defined]
    builtins.print = print_in_main_process


def slurm_init_distributed_mode(args: Any) -> None:
    """Let the processes that Slurm started for a job meet, as those of ``torchrun`` do.

    ``SLURM_*`` of the environment become torch's ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and
    ``LOCAL_WORLD_SIZE``; ``MASTER_ADDR`` and ``MASTER_PORT`` are kept where they are set. Without
    Slurm, or with one process, nothing is started.

    Args:
        args: gets ``rank``, ``world_size``, ``gpu`` (the number within the machine) and
            ``distributed``. Its ``dist_url``, if it has one that begins with ``tcp://``, says where
            they meet.

    Raises:
        RuntimeError: the processes are on several machines, and nothing says where they meet.
    """
    job = os.environ
    args.rank = int(job.get("SLURM_PROCID", 0))
    args.world_size = int(job.get("SLURM_NTASKS", 1)) if "SLURM_PROCID" in job else 1
    args.gpu = int(job.get("SLURM_LOCALID", 0))
    args.distributed = args.world_size > 1
    if not args.distributed:
        return
    machines = int(job.get("SLURM_NNODES", job.get("SLURM_JOB_NUM_NODES", 1)))
    local_size = args.world_size // machines
    job["RANK"], job["WORLD_SIZE"] = str(args.rank), str(args.world_size)
    job["LOCAL_RANK"], job["LOCAL_WORLD_SIZE"] = str(args.gpu), str(local_size)
    url = str(getattr(args, "dist_url", ""))
    if not url.startswith("tcp://"):
        url = "env://"
        _name_meeting_place(machines)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(args.gpu)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", url, rank=args.rank, world_size=args.world_size
    )
    from detectron2.utils import comm  # this module needs torch alone until here

    comm.create_local_process_group(local_size)
    comm.synchronize()
    setup_for_distributed(args.rank == 0)


def _name_meeting_place(machines: int) -> None:
    """Set ``MASTER_ADDR`` and ``MASTER_PORT``, the same in all processes of a job."""
    job = os.environ
    if "MASTER_ADDR" not in job:
        first = "127.0.0.1" if machines == 1 else job.get("SLURM_LAUNCH_NODE_IPADDR")
        if first is None:
            raise RuntimeError(
                f"The job is on {machines} machines, but Slurm doesn't say where it was launched: "
                "set MASTER_ADDR to the first of them."
            )
        job["MASTER_ADDR"] = first
    if "MASTER_PORT" not in job:
        job["MASTER_PORT"] = str(20000 + int(job.get("SLURM_JOB_ID", 0)) % 20000)
