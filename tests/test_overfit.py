"""Every family of models learns a handful of images by heart, one of them without objects.

Colored rectangles on gray, the class is the color. A model has learned the images when each object
has a detection of its class with IoU above one half among the best ``n`` of its image, ``n`` being
the number of its objects, and no detection in the image without objects scores as high as the
worst of these.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import zoo
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import nn
from toy_models import FAMILIES, tiny

from detrex.config import get_config

COLORS = torch.tensor([[230, 40, 40], [40, 200, 60], [50, 70, 230]], dtype=torch.uint8)
SCENES = [  # height, width, boxes, classes
    (64, 64, [(4, 6, 30, 28), (34, 30, 60, 60)], [0, 1]),
    (48, 64, [(20, 8, 52, 40)], [2]),
    (64, 48, [], []),
    (64, 64, [(6, 34, 28, 58), (36, 4, 58, 26)], [1, 2]),
]


def scene(height: int, width: int, boxes: list, classes: list[int]) -> dict:
    entry = zoo.image(height, width, boxes, classes)
    entry["image"].fill_(110)
    for (x0, y0, x1, y1), label in zip(boxes, classes, strict=True):
        entry["image"][:, y0:y1, x0:x1] = COLORS[label][:, None, None]
    return entry


def train(model: nn.Module, scenes: list[dict], batch: int, steps: int) -> list[float]:
    """Losses of the steps until all is learned, at most ``steps``."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    history = []
    for step in range(steps):
        start = step * batch % len(scenes)
        model.train()
        losses = sum(model(scenes[start : start + batch]).values())
        optimizer.zero_grad()
        losses.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(losses.item())
        if step % 20 == 19 and not missed(model, scenes):
            break
    return history


@torch.no_grad()
def missed(model: nn.Module, scenes: list[dict]) -> list[str]:
    """What has not been learned yet."""
    problems, weakest, false_alarm = [], 1.0, 0.0
    for i, (entry, output) in enumerate(zip(scenes, model.eval()(scenes), strict=True)):
        found, objects = output["instances"], entry["instances"]
        count = len(objects)
        if not count:
            false_alarm = max(false_alarm, found.scores[0].item())
            continue
        best = found[torch.arange(len(found)) < count]
        overlap = pairwise_iou(objects.gt_boxes, best.pred_boxes)
        right = objects.gt_classes[:, None] == best.pred_classes
        hit = ((overlap > 0.5) & right).any(1)
        problems += [f"object {j} of image {i}" for j in range(count) if not hit[j]]
        weakest = min(weakest, best.scores[-1].item())
    if false_alarm >= weakest:
        problems.append(f"score {false_alarm:.2f} without an object, {weakest:.2f} with one")
    return problems


def test_missing_objects_are_noticed():
    """The judge itself: boxes elsewhere, wrong classes and false alarms count as missed."""
    scenes = [scene(*arguments) for arguments in SCENES]
    assert missed(Answers(), scenes) == []
    objects = sum(len(entry["instances"]) for entry in scenes)
    assert len(missed(Answers(shift=20.0), scenes)) == objects
    assert len(missed(Answers(turn=1), scenes)) == objects
    (alarm,) = missed(Answers(alarm=0.9), scenes)
    assert "without an object" in alarm


class Answers(nn.Module):
    """Answers with the truth, or with a mistake of one kind."""

    def __init__(self, shift: float = 0.0, turn: int = 0, alarm: float = 0.1):
        super().__init__()
        self.shift, self.turn, self.alarm = shift, turn, alarm

    def forward(self, batch: list[dict]) -> list[dict]:
        return [{"instances": self.answer(entry["instances"])} for entry in batch]

    def answer(self, truth: Instances) -> Instances:
        count = len(truth)
        found = Instances(truth.image_size)
        boxes = torch.cat((truth.gt_boxes.tensor + self.shift, torch.tensor([[0.0, 0, 9, 9]])))
        found.pred_boxes = Boxes(boxes)
        found.pred_classes = F.pad((truth.gt_classes + self.turn) % 3, (0, 1))
        found.scores = F.pad(torch.full((count,), 0.9), (0, 1), value=self.alarm)
        return found


@pytest.mark.parametrize(
    ("batch", "embed_dim", "num_classes"), [(1, 48, 5), (2, 64, 3)], ids=["one", "two"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_learns_every_box(family, batch, embed_dim, num_classes):
    torch.manual_seed(0)
    model = instantiate(tiny(get_config(FAMILIES[family]).model, embed_dim, num_classes))
    scenes = [scene(*arguments) for arguments in SCENES]
    history = train(model, scenes, batch, steps=600)
    assert missed(model, scenes) == []
    epoch = len(scenes) // batch
    assert sum(history[-epoch:]) < sum(history[:epoch]) / 2
