"""The work that benchmarks measure: a config's model on random images, and its training step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import HookBase
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config import apply_overrides, get_config
from detrex.engine.build import placed
from detrex.engine.config import find_config_file
from detrex.engine.trainer import Trainer, amp_dtype
from detrex.utils.measure import REST, Clock, StageMeter, Work, flop_clock, synchronize
from detrex.utils.pretrained import skip_pretrained

__all__ = [
    "Stage",
    "TrainingStep",
    "benchmark_config",
    "build_random_model",
    "measure_stages",
    "random_batch",
    "stage_table",
    "stages_of",
]

Batch = list[dict[str, Any]]


class Stage(NamedTuple):
    """One row of the table of stages; seconds and FLOPs of one run."""

    name: str
    forward: float
    backward: float
    flops: float

    @property
    def seconds(self) -> float:
        return self.forward + self.backward


def benchmark_config(
    config_file: str, overrides: Sequence[str] = (), sections: Sequence[str] = ("model",)
) -> DictConfig:
    """A config with the sections that a benchmark needs; the others may lack values, or be absent.

    Args:
        config_file: a path, or the name of a config that comes with detrex.
        overrides: `key=value` strings.
        sections: such as `model`, `optimizer`, `dataloader.train`.

    Returns:
        The config; `train` has every key of `common/train.py`.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: an override names a key that does not exist, or a section is missing.
        ValueError: a value of these sections that the config leaves to the user is not given.
    """
    cfg = LazyConfig.load(find_config_file(config_file))
    missing = [name for name in sections if OmegaConf.select(cfg, name) is None]
    if missing:
        raise KeyError(f"{config_file} has no {' and no '.join(missing)}, which this task measures")
    cfg.train = OmegaConf.merge(get_config("common/train.py").train, cfg.get("train", {}))
    cfg = apply_overrides(cfg, list(overrides))
    unsaid = [
        f"{name}.{key}=..."
        for name in sections
        for key in sorted(OmegaConf.missing_keys(OmegaConf.select(cfg, name)))
    ]
    if unsaid:
        raise ValueError(f"the config leaves these values to you: {' '.join(unsaid)}")
    return cfg


def build_random_model(cfg: DictConfig, device: torch.device) -> nn.Module:
    """The model of a config with random weights, on which its speed doesn't depend."""
    torch.manual_seed(0)
    with skip_pretrained():
        model: nn.Module = instantiate(cfg.model)
    return placed(model, device)


def random_batch(
    size: tuple[int, int], images: int = 1, num_classes: int = 1, objects: int = 10
) -> Batch:
    """Images of noise with random objects, as detectron2's loaders give them.

    Args:
        size: height and width in pixels.
        images: how many.
        num_classes: classes of the objects.
        objects: per image.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = size
    batch = []
    for _ in range(images):
        image = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)
        corners = torch.rand(objects, 2, 2, generator=generator).sort(1).values
        boxes = corners * 0.9 + torch.tensor([[0.0, 0.0], [0.1, 0.1]])  # none is empty
        instances = Instances(size)
        instances.gt_boxes = Boxes((boxes * torch.tensor([width, height])).flatten(1))
        instances.gt_classes = torch.randint(num_classes, (objects,), generator=generator)
        batch.append({"image": image, "height": height, "width": width, "instances": instances})
    return batch


class TrainingStep:
    """Forward, backward and update as `tools/train_net.py` runs them, on the same batch each time.

    (It runs them after :func:`~detrex.utils.memory.keep_freed_memory`; that is the caller's.)

    Args:
        cfg: a config with `optimizer` and `train`.
        model: its model, on its device.
        batch: the images.

    Attributes:
        meter: is told where the backward pass ends and when the optimizer works, if there is one.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module, batch: Batch) -> None:
        self.meter: StageMeter | None = None
        train, optimizer = cfg.train, cfg.optimizer.copy()
        optimizer.params.model = model
        self.optimizer: torch.optim.Optimizer = instantiate(optimizer)
        self.trainer = Trainer(
            model.train(),
            itertools.repeat(batch),
            self.optimizer,
            amp=train.amp.enabled,
            amp_dtype=amp_dtype(train.amp.dtype, next(model.parameters()).device),
            clip_grad_params=train.clip_grad.params if train.clip_grad.enabled else None,
        )
        self.trainer.register_hooks([_AfterBackward(self._end_backward)])
        self.optimizer.register_step_pre_hook(self._enter_optimizer)
        self.optimizer.register_step_post_hook(self._leave_optimizer)

    def __call__(self) -> None:
        with EventStorage() as storage:
            self.trainer.storage = storage
            self.trainer.run_step()

    def _end_backward(self) -> None:
        if self.meter is not None:
            self.meter.rest()

    def _enter_optimizer(self, *_: Any) -> None:
        if self.meter is not None:
            self.meter.enter("optimizer")

    def _leave_optimizer(self, *_: Any) -> None:
        if self.meter is not None:
            self.meter.leave()


class _AfterBackward(HookBase):
    def __init__(self, call: Callable[[], None]) -> None:
        self.after_backward = call  # type: ignore[method-assign]


def stages_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Modules by stage: the parts of a model, those of its transformer, and the decoder's heads."""
    stages: dict[str, list[nn.Module]] = {}
    for name, part in model.named_children():
        parts = part.named_children() if name == "transformer" else iter([(name, part)])
        stages.update((inner, _called(module)) for inner, module in parts)
    heads = [
        head
        for decoder in stages.get("decoder", [])
        for name in ("class_embed", "bbox_embed")
        for head in _called(getattr(decoder, name, nn.ModuleList()))
    ]
    return {**stages, "heads": heads} if heads else stages


def _called(module: nn.Module) -> list[nn.Module]:
    """The module itself, or what a container that is never called holds."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return list(module.children())
    return [module]


def measure_stages(
    model: nn.Module,
    work: Work,
    device: torch.device,
    repeats: int = 3,
    clock: Clock = time.perf_counter,
) -> list[Stage]:
    """Mean seconds and FLOPs of each stage of a model in a piece of work, in the order of stages.

    On a GPU each stage is waited for, so that all of them take longer than the work as a whole.

    Args:
        model: whose stages.
        work: what calls the model; a `TrainingStep` also gives what follows the backward pass.
        device: of the model.
        repeats: runs that the seconds are the mean of.
        clock: as for `time_in_turns`.
    """

    def seconds() -> float:
        synchronize(device)
        return clock()

    def run(clock: Clock, times: int) -> StageMeter:
        meter = StageMeter(stages, clock)
        if isinstance(work, TrainingStep):
            work.meter = meter
        for _ in range(times):
            work()
        meter.rest()
        meter.remove()
        if isinstance(work, TrainingStep):
            work.meter = None
        return meter

    stages = stages_of(model)
    timed = run(seconds, repeats)
    with flop_clock() as flops:
        counted = run(flops, 1)
    return list(_rows([*stages, "optimizer", REST], timed, counted, repeats))


def _rows(
    names: Sequence[str], timed: StageMeter, counted: StageMeter, repeats: int
) -> Iterator[Stage]:
    for name in names:
        forward, backward = timed.forward[name] / repeats, timed.backward[name] / repeats
        if forward or backward:
            flops = counted.forward[name] + counted.backward[name]
            yield Stage(name, forward, backward, flops)


def stage_table(stages: Sequence[Stage], limit: float) -> str:
    """A table for people; ``limit`` is the GFLOP/s that matrix products reach."""
    total = sum(stage.seconds for stage in stages)
    training = any(stage.backward for stage in stages)
    split = f"{'forward':>10}{'backward':>10}" if training else ""
    lines = [
        f"{'stage':<20}{'ms':>10}{split}{'share':>8}{'GFLOP':>10}{'GFLOP/s':>9}{'of limit':>10}"
    ]
    for stage in stages:
        split = f"{1e3 * stage.forward:10.1f}{1e3 * stage.backward:10.1f}" if training else ""
        rate = stage.flops / stage.seconds / 1e9
        lines.append(
            f"{stage.name:<20}{1e3 * stage.seconds:10.1f}{split}{stage.seconds / total:8.1%}"
            f"{stage.flops / 1e9:10.2f}{rate:9.1f}{rate / limit:10.0%}"
        )
    return "\n".join(lines)
