"""How long the criterion takes: all layers together, and layer by layer as it is usually written.

    python benchmarks/criterion.py --output criterion.json

Six decoder layers, 300 queries, 80 classes, 16 images of 20 boxes. Both ways match, compute the
same losses and differentiate them, in turns in one process; what counts is the median of each.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from common import compare, options, write
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from detrex.benchmark import Work, prepare
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.predictions import Prediction, Targets

ALPHA, GAMMA = 0.25, 2.0
COST_CLASS, COST_BBOX, COST_GIOU = 2.0, 5.0, 2.0
Losses = dict[str, Tensor]


def xyxy(boxes: Tensor) -> Tensor:
    """Centers and sizes -> corners."""
    return box_convert(boxes, "cxcywh", "xyxy")


class PlainCriterion(nn.Module):
    """One layer at a time, with the cost of every query for the targets of all images."""

    def forward(self, predictions: list[Prediction], targets: Targets) -> Losses:
        losses: Losses = {}
        count = torch.tensor(float(sum(len(t["labels"]) for t in targets)))
        count = count.to(predictions[0].boxes.device).clamp(min=1).item()
        for layer in predictions:
            indices = self.match(layer, targets)
            batch = torch.cat([torch.full_like(q, i) for i, (q, _) in enumerate(indices)])
            query = torch.cat([q for q, _ in indices])
            labels = torch.cat([t["labels"][j] for t, (_, j) in zip(targets, indices, strict=True)])
            boxes = torch.cat([t["boxes"][j] for t, (_, j) in zip(targets, indices, strict=True)])
            one_hot = torch.zeros_like(layer.logits)
            one_hot[batch, query, labels] = 1
            focal = sigmoid_focal_loss(layer.logits, one_hot, ALPHA, GAMMA, "sum")
            found = layer.boxes[batch, query]
            giou = generalized_box_iou(xyxy(found), xyxy(boxes)).diag()
            losses[f"loss_class{layer.suffix}"] = focal / count
            losses[f"loss_bbox{layer.suffix}"] = F.l1_loss(found, boxes, reduction="sum") / count
            losses[f"loss_giou{layer.suffix}"] = (1 - giou).sum() / count
        return losses

    @torch.no_grad()
    def match(self, layer: Prediction, targets: Targets) -> list[tuple[Tensor, Tensor]]:
        """Queries and targets of each image's matched pairs."""
        batch, queries = layer.logits.shape[:2]
        prob = layer.logits.flatten(0, 1).sigmoid()
        boxes = layer.boxes.flatten(0, 1)
        labels = torch.cat([t["labels"] for t in targets])
        wanted = torch.cat([t["boxes"] for t in targets])
        negative = (1 - ALPHA) * prob**GAMMA * -(1 - prob + 1e-8).log()
        positive = ALPHA * (1 - prob) ** GAMMA * -(prob + 1e-8).log()
        cost = (
            COST_CLASS * (positive[:, labels] - negative[:, labels])
            + COST_BBOX * torch.cdist(boxes, wanted, p=1)
            - COST_GIOU * generalized_box_iou(xyxy(boxes), xyxy(wanted))
        )
        cost = cost.view(batch, queries, -1).cpu()
        parts = cost.split([len(t["labels"]) for t in targets], -1)
        pairs = [linear_sum_assignment(part[i]) for i, part in enumerate(parts)]
        return [(torch.as_tensor(q), torch.as_tensor(t)) for q, t in pairs]


def batch(args: argparse.Namespace) -> tuple[list[Prediction], Targets]:
    """Random predictions that want gradients, and random targets."""
    torch.manual_seed(0)
    shape = (args.images, args.queries)
    predictions = [
        Prediction(
            torch.randn(*shape, args.classes, device=args.device).sub(4).requires_grad_(),
            torch.rand(*shape, 4, device=args.device).mul(0.6).add(0.2).requires_grad_(),
            f"_{layer}" if layer else "",
        )
        for layer in range(args.layers)
    ]
    targets = [
        {
            "labels": torch.randint(args.classes, (args.boxes,), device=args.device),
            "boxes": torch.rand(args.boxes, 4, device=args.device).mul(0.6).add(0.2),
        }
        for _ in range(args.images)
    ]
    return predictions, targets


def step(criterion: nn.Module, predictions: list[Prediction], targets: Targets) -> Losses:
    """Losses of all layers and their gradients."""
    for prediction in predictions:
        prediction.logits.grad = prediction.boxes.grad = None
    losses: Losses = criterion(predictions, targets)
    torch.stack(list(losses.values())).sum().backward()
    return losses


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Compare both ways, after checking that they agree."""
    device, clock = prepare(args)
    predictions, targets = batch(args)
    matcher = HungarianMatcher(COST_CLASS, COST_BBOX, COST_GIOU)
    ways: dict[str, nn.Module] = {
        "together": SetCriterion(args.classes, matcher, {}),
        "layer by layer": PlainCriterion(),
    }
    expected, found = (step(way, predictions, targets) for way in ways.values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    works: dict[str, Work] = {
        name: partial(step, way, predictions, targets) for name, way in ways.items()
    }
    return compare("together", works, args.repeats, device, clock)


def main() -> None:
    parser = options(__doc__, repeats=15)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=20, help="per image")
    args = parser.parse_args()
    write(args, measure(args))


if __name__ == "__main__":
    main()
