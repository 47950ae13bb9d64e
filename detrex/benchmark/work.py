"""The work that benchmarks measure: a config's model on random images, and its training step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn

from detrex.benchmark.stages import MeteredWork
from detrex.engine.build import distributed, to_device
from detrex.engine.trainer import Trainer, step_options
from detrex.utils.pretrained import skip_pretrained

__all__ = ["Batch", "TrainingStep", "build_random_model", "random_batch"]

Batch = list[dict[str, Any]]


def build_random_model(cfg: DictConfig, device: torch.device) -> nn.Module:
    """The model of a config with random weights, on which its speed doesn't depend."""
    torch.manual_seed(0)
    with skip_pretrained():
        model: nn.Module = instantiate(cfg.model)
    return to_device(model, device)


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


class TrainingStep(MeteredWork):
    """Forward, backward and update as ``tools/train_net.py`` runs them, always on one batch.

    Several processes, each with a batch, share gradients as ``train.ddp`` says.

    (It runs them after :func:`~detrex.utils.allocator.keep_freed_memory`; that is the caller's.)

    Args:
        cfg: a config with ``optimizer`` and ``train``.
        model: its model, on its device.
        batch: the images.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module, batch: Batch) -> None:
        optimizer = cfg.optimizer.copy()
        optimizer.params.model = model
        self.optimizer: torch.optim.Optimizer = instantiate(optimizer)
        self.trainer = Trainer(
            distributed(cfg, model.train()),
            itertools.repeat(batch),
            self.optimizer,
            **step_options(cfg.train, next(model.parameters()).device),
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
