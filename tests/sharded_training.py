"""One optimizer step of a criterion on a batch, whole or shared out, for tests in processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detrex.engine import Trainer
from detrex.layers import box_xyxy_to_cxcywh
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.predictions import Prediction

QUERIES, CHANNELS, CLASSES = 7, 8, 5
OBJECTS = {
    "uneven": (3, 0, 1, 2),
    "all in one process": (0, 0, 4, 1),
    "one object": (0, 0, 0, 1),  # fewer than processes
    "no object": (0, 0, 0, 0),
}
CASES = {
    f"{kind}, {name}, {steps} batches": (kind, counts, steps)
    for kind in ("focal_loss", "ce_loss")
    for name, counts in OBJECTS.items()
    for steps in ((1, 2) if kind == "focal_loss" else (1,))
}


class Head(nn.Module):
    """Predicts classes and boxes from given features, twice, and answers with the losses."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        cost = "ce_cost" if kind == "ce_loss" else "focal_loss_cost"
        matcher = HungarianMatcher(2, 5, 2, cost_class_type=cost)
        self.criterion = SetCriterion(CLASSES, matcher, {"loss_bbox": 5.0}, loss_class_type=kind)
        self.linear = nn.Linear(CHANNELS, CLASSES + (kind == "ce_loss") + 4)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        out = self.linear(torch.stack([x["image"] for x in batch]))
        logits, boxes = out[..., :-4], out[..., -4:].sigmoid()
        targets = [
            {
                "labels": x["instances"].gt_classes,
                "boxes": box_xyxy_to_cxcywh(x["instances"].gt_boxes.tensor),
            }
            for x in batch
        ]
        layers = [Prediction(logits, boxes), Prediction(logits / 2, boxes.flip(1), "_0")]
        return self.criterion.weighted(self.criterion(layers, targets))


def records(counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Features and targets of images with so many objects each."""
    random = torch.Generator().manual_seed(0)
    found = []
    for count in counts:
        target = Instances((1, 1))
        target.gt_boxes = Boxes(torch.rand(count, 2, 2, generator=random).sort(1).values.flatten(1))
        target.gt_classes = torch.randint(CLASSES, (count,), generator=random)
        features = torch.randn(QUERIES, CHANNELS, generator=random)
        found.append({"image": features, "instances": target})
    return found


def step(kind: str, batches: list[list[dict[str, Any]]]) -> Tensor:
    """The weights after one step of gradient descent on all batches together."""
    torch.manual_seed(0)
    head = Head(kind)
    model = DistributedDataParallel(head) if dist.is_initialized() else head
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    Trainer(model, batches, optimizer, grad_accum_steps=len(batches)).train(0, 1)
    return torch.cat([p.detach().flatten() for p in head.parameters()])


def in_process(rank: int, folder: str) -> None:
    """All cases in one of two processes, each with half of the images; saves the weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name, (kind, counts, steps) in CASES.items():
        half = records(counts)[rank * 2 : rank * 2 + 2]
        batches = [half] if steps == 1 else [half[:1], half[1:]]
        results[name] = step(kind, batches)
    torch.save(results, Path(folder) / f"{rank}.pth")
    dist.destroy_process_group()
