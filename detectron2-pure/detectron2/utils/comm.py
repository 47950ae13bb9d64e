"""Small helpers around torch.distributed that also work when nothing is distributed.

Python objects travel over a gloo group whatever the main backend is, so metrics and
predictions need no GPU memory. All of them must therefore be picklable.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# Processes that run on this machine. ``launch`` sets it; frameworks that start their own
# processes call ``create_local_process_group`` or set it. Any: torch's own annotations of groups
# disagree with each other.
_LOCAL_PROCESS_GROUP: Any = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes in the job, 1 without torch.distributed."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Rank of this process in the job, 0 without torch.distributed."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is the process that writes logs, metrics and checkpoints."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Make the group of the processes on this machine; call once in every process.

    Args:
        num_workers_per_machine: processes per machine, the same on all machines.

    Raises:
        RuntimeError: the group exists already.
        ValueError: the world size is not a multiple of the argument.
    """
    global _LOCAL_PROCESS_GROUP
    if _LOCAL_PROCESS_GROUP is not None:
        raise RuntimeError("The local process group exists already; create it only once.")
    world_size = get_world_size()
    if world_size % num_workers_per_machine != 0:
        raise ValueError(
            f"{world_size} processes cannot be split into machines of "
            f"{num_workers_per_machine} processes each."
        )
    machine = get_rank() // num_workers_per_machine
    for i in range(world_size // num_workers_per_machine):
        # new_group is collective: each process has to create the groups of all machines.
        first = i * num_workers_per_machine
        group = dist.new_group(list(range(first, first + num_workers_per_machine)))
        if i == machine:
            _LOCAL_PROCESS_GROUP = group


def destroy_process_groups() -> None:
    """Leave the job: ``get_world_size`` is 1 afterwards. The opposite of joining one."""
    global _LOCAL_PROCESS_GROUP
    dist.destroy_process_group()
    _LOCAL_PROCESS_GROUP = None
    _get_global_gloo_group.cache_clear()


def get_local_process_group() -> Any:
    """The group of the processes on this machine.

    Raises:
        RuntimeError: nobody created it.
    """
    if _LOCAL_PROCESS_GROUP is None:
        raise RuntimeError(
            "There is no local process group: start processes with detectron2.engine.launch, or "
            "call detectron2.utils.comm.create_local_process_group() after init_process_group()."
        )
    return _LOCAL_PROCESS_GROUP


def _torchrun_value(name: str) -> int | None:
    """LOCAL_RANK or LOCAL_WORLD_SIZE as torchrun gives it, when no local group was made."""
    if _LOCAL_PROCESS_GROUP is None and name in os.environ:
        return int(os.environ[name])
    return None


def get_local_rank() -> int:
    """Rank among the processes of this machine, 0 without torch.distributed."""
    if not _is_distributed():
        return 0
    from_env = _torchrun_value("LOCAL_RANK")
    return dist.get_rank(group=get_local_process_group()) if from_env is None else from_env


def get_local_size() -> int:
    """Number of processes on this machine, 1 without torch.distributed."""
    if not _is_distributed():
        return 1
    from_env = _torchrun_value("LOCAL_WORLD_SIZE")
    return dist.get_world_size(group=get_local_process_group()) if from_env is None else from_env


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # NCCL guesses the device from the rank when it is not told.
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@functools.lru_cache(maxsize=1)
def _get_global_gloo_group() -> Any:
    """A group of all processes that can carry pickled objects."""
    if dist.get_backend() == dist.Backend.NCCL:
        return dist.new_group(backend="gloo")
    return dist.group.WORLD


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect one picklable object from every process, in every process.

    Args:
        data: this process's object.
        group: a group that can send CPU data; all processes by default.

    Returns:
        The objects in the order of the ranks.
    """
    if get_world_size() == 1:
        return [data]
    group = _get_global_gloo_group() if group is None else group
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect one picklable object from every process, in process ``dst`` only.

    Args:
        data: this process's object.
        dst: the (global) rank that receives.
        group: a group that can send CPU data; all processes by default.

    Returns:
        The objects in the order of the ranks in ``dst``, an empty list elsewhere.
    """
    if get_world_size() == 1:
        return [data]
    group = _get_global_gloo_group() if group is None else group
    if dist.get_rank() != dst:
        dist.gather_object(data, None, dst=dst, group=group)
        return []
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered


def shared_random_seed() -> int:
    """A random integer in [0, 2**31) that is the same in every process.

    Drawn from numpy's global generator of the first process, hence governed by
    ``seed_all_rng``. All processes must call it.
    """
    return all_gather(int(np.random.randint(2**31)))[0]


def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Sum or average scalar tensors over all processes.

    Args:
        input_dict: scalar tensors; the same keys in every process.
        average: average instead of sum.

    Returns:
        The reduced values in the first process; other processes get unspecified values.
    """
    world_size = get_world_size()
    if world_size < 2 or not input_dict:
        return input_dict
    with torch.no_grad():
        names = sorted(input_dict)  # the order of insertion may differ between processes
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if average and get_rank() == 0:
            values /= world_size
        return dict(zip(names, values, strict=True))
