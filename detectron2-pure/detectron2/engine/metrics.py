"""Losses of all ranks into the event storage, and the check that they are numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage


def write_metrics(
    loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
) -> None:
    """Average losses over the ranks and put them into the current storage of rank 0.

    Stores ``total_loss``, each loss (if there are several) and ``data_time``, which is the
    longest of all ranks. All ranks must call it.

    Args:
        loss_dict: scalar losses, the same names in every rank.
        data_time: seconds that this rank waited for its batch.
        cur_iter: the iteration they belong to.
        prefix: put before ``total_loss``; the losses keep the names that the model gave them.

    Raises:
        FloatingPointError: (in rank 0) a loss is infinite or NaN.
    """
    ranks = comm.gather({**_to_floats(loss_dict), "data_time": data_time})
    if not comm.is_main_process():
        return
    storage = get_event_storage()
    data_time = max(metrics.pop("data_time") for metrics in ranks)
    storage.put_scalar("data_time", data_time, cur_iter=cur_iter)
    means = {name: sum(metrics[name] for metrics in ranks) / len(ranks) for name in ranks[0]}
    total = sum(means.values())
    if not math.isfinite(total):
        raise FloatingPointError(_non_finite_message(ranks, means, cur_iter))
    storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
    if len(means) > 1:
        for name, value in means.items():
            storage.put_scalar(name, value, cur_iter=cur_iter)


def _to_floats(loss_dict: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """All values with one transfer: a separate ``.item()`` would wait for the GPU each time."""
    if not loss_dict:
        return {}
    values = [torch.as_tensor(value).detach().flatten() for value in loss_dict.values()]
    device = next((value.device for value in values if value.device.type != "cpu"), "cpu")
    numbers = torch.cat([value.to(device) for value in values]).tolist()
    if len(numbers) != len(loss_dict):
        shapes = {name: tuple(torch.as_tensor(v).shape) for name, v in loss_dict.items()}
        raise ValueError(f"Each loss must be one number; the shapes are {shapes}.")
    return dict(zip(loss_dict, numbers, strict=True))


def _non_finite_message(
    ranks: Sequence[Mapping[str, float]], means: Mapping[str, float], cur_iter: int
) -> str:
    """Which losses are not finite, and in which ranks if there are several."""
    culprits = []
    for name in means:
        bad = {r: m[name] for r, m in enumerate(ranks) if not math.isfinite(m[name])}
        if bad:
            where = f" (rank {', '.join(map(str, bad))})" if len(ranks) > 1 else ""
            culprits.append(f"{name} = {next(iter(bad.values()))}{where}")
    named = ", ".join(culprits) or "only their sum, which overflows"
    return (
        f"Loss became infinite or NaN at iteration={cur_iter}!\n"
        f"Not finite: {named}\nloss_dict = {dict(means)}"
    )
