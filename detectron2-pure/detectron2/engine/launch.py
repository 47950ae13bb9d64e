"""Starting one process per GPU, or joining the ones that torchrun has started."""

from __future__ import annotations

import datetime
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = datetime.timedelta(minutes=30)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: datetime.timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call ``main_func(*args)`` once per GPU.

    - Under torchrun (``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK`` are set) this process is one of
      several: it joins the others and calls the function; torchrun's numbers count.
    - One GPU on one machine: a plain call in this process.
    - Otherwise this machine's processes are started, with NCCL, or gloo where there is no CUDA.
      When one fails, the others are ended and its error, with traceback, is raised here.

    Args:
        main_func: importable from a module (new processes import it).
        num_gpus_per_machine: processes on each machine.
        num_machines: how many machines.
        machine_rank: which of them this is.
        dist_url: where the processes meet, as "tcp://host:port"; None or "auto" takes a free
            port of this machine, which only works for one machine.
        args: arguments of ``main_func``.
        timeout: how long a process waits for the others.

    Raises:
        ValueError: several machines without ``dist_url``; more processes than GPUs; an
            environment that only half looks like torchrun's.
        torch.multiprocessing.ProcessRaisedException: a process failed; the text has its traceback.
    """
    world_size = num_machines * num_gpus_per_machine
    if _is_one_of_several(world_size):
        _run_under_torchrun(main_func, args, timeout)
        return
    if world_size <= 1:
        main_func(*args)
        return
    _check_gpus(num_gpus_per_machine)
    url = _resolve_url(dist_url, num_machines)
    mp.start_processes(
        _worker,
        nprocs=num_gpus_per_machine,
        args=(
            main_func,
            world_size,
            num_gpus_per_machine,
            machine_rank,
            url,
            args,
            timeout,
            mp.get_start_method(allow_none=True),
        ),
        daemon=False,
        start_method="spawn",
    )


def _is_one_of_several(num_asked: int) -> bool:
    """Whether the environment says that others than ``launch`` start the processes."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return False
    # In containers the two often count machines, and the script's arguments say the same.
    return "LOCAL_RANK" in os.environ or (int(os.environ["WORLD_SIZE"]) > 1 and num_asked <= 1)


def _resolve_url(dist_url: str | None, num_machines: int) -> str:
    if dist_url is not None and dist_url != "auto":
        return dist_url
    if num_machines > 1:
        raise ValueError(
            "Training on several machines needs an address that all can reach: give dist_url as "
            'tcp://<host of machine 0>:<free port>. "auto" is for one machine.'
        )
    return f"tcp://127.0.0.1:{_find_free_port()}"


def _find_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _check_gpus(num_processes: int) -> None:
    available = torch.cuda.device_count()
    if torch.cuda.is_available() and num_processes > available:
        raise ValueError(
            f"{num_processes} GPUs were asked for, but this machine has {available}. Ask for at "
            "most that many (--num-gpus)."
        )


def _worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_local: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
    timeout: datetime.timedelta,
    start_method: str | None,
) -> None:
    """What each started process does."""
    # Spawned processes spawn theirs. Data loaders are to start workers as they do without launch,
    # which takes less time and memory.
    mp.set_start_method(start_method, force=True)
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        # By default every process would use a thread per core.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_local))
    _join(
        local_rank,
        num_local,
        timeout,
        init_method=dist_url,
        world_size=world_size,
        rank=machine_rank * num_local + local_rank,
    )
    main_func(*args)
    comm.destroy_process_groups()


def _run_under_torchrun(
    main_func: Callable[..., Any], args: tuple[Any, ...], timeout: datetime.timedelta
) -> None:
    names = ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(
            "RANK and WORLD_SIZE are set, which says that torchrun or the like started this "
            f"process, but {', '.join(missing)} is not. Set it, or unset RANK and WORLD_SIZE, or, "
            "if they count machines, give num_machines and machine_rank."
        )
    if dist.is_initialized():  # somebody joined already
        main_func(*args)
        return
    num_local = int(os.environ["LOCAL_WORLD_SIZE"])
    _join(int(os.environ["LOCAL_RANK"]), num_local, timeout, init_method="env://")
    main_func(*args)
    comm.destroy_process_groups()


def _join(local_rank: int, num_local: int, timeout: datetime.timedelta, **init: Any) -> None:
    """Enter the process group, and make the group of this machine's processes."""
    use_cuda = torch.cuda.is_available()
    if use_cuda:
        # Before anything else touches CUDA: all ranks would put a context on GPU 0.
        torch.cuda.set_device(local_rank)
    backend = "nccl" if use_cuda else "gloo"
    try:
        dist.init_process_group(backend=backend, timeout=timeout, **init)
    except Exception as e:
        logging.getLogger(__name__).error(f"Could not join at {init['init_method']}: {e}")
        raise
    comm.create_local_process_group(num_local)
    # Nobody goes on before all are here; later failures then have their own cause.
    comm.synchronize()
