"""Class losses against the papers' sums, one number at a time, and what terms may know."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.ops import box_convert, box_iou

from detrex.modeling.criterion import MatchedPairs, SetCriterion, Step
from detrex.modeling.losses import (
    BoxL1Loss,
    FocalClassLoss,
    IoUAwareClassLoss,
    MatchabilityClassLoss,
    QualityFocalClassLoss,
    VarifocalClassLoss,
)
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.predictions import Prediction, Supervision, Targets

CLASSES, QUERIES = 4, 6
INDICES = [
    (torch.tensor([4, 0, 5]), torch.tensor([0, 1, 0])),  # two queries for the first target
    (torch.tensor([2]), torch.tensor([0])),
    (torch.tensor([], dtype=torch.long),) * 2,
]


def bce(p: float, target: float) -> float:
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def focal(p, q, rank):
    return 0.3 * (1 - p) ** 2.5 * bce(p, 1)


def varifocal(p, q, rank):
    return q * bce(p, q)


def matchability(p, q, rank):
    return bce(p, q**1.5)


def quality_focal(p, q, rank):
    return abs(q - p) ** 2 * bce(p, q)


def iou_aware(p, q, rank):
    return bce(p, math.exp(-rank / 1.5) * p**0.25 * q**0.75)


CASES = {  # the loss, of a matched query, the weight and the exponent of the score of negatives
    "focal": (FocalClassLoss(0.3, 2.5), focal, 0.7, 2.5),
    "varifocal": (VarifocalClassLoss(), varifocal, 0.75, 2.0),
    "matchability": (MatchabilityClassLoss(), matchability, 1.0, 1.5),
    "quality_focal": (QualityFocalClassLoss(), quality_focal, 1.0, 2.0),
    "iou_aware": (IoUAwareClassLoss(), iou_aware, 1.0, 2.0),
}


def random_boxes(*shape: int) -> Tensor:
    center = 0.4 + 0.2 * torch.rand(*shape, 2)
    return torch.cat((center, 0.3 + 0.3 * torch.rand(*shape, 2)), -1).double()


def batch() -> tuple[Prediction, Targets]:
    torch.manual_seed(0)
    targets = [
        {"labels": torch.tensor(labels, dtype=torch.long), "boxes": random_boxes(len(labels))}
        for labels in ([2, 0], [1], [])
    ]
    logits = torch.randn(3, QUERIES, CLASSES).double().requires_grad_()
    return Prediction(logits, random_boxes(3, QUERIES), "", Supervision(indices=INDICES)), targets


def overlaps(prediction: Prediction, targets: Targets, image: int) -> Tensor:
    boxes = (prediction.boxes[image], targets[image]["boxes"])
    return box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in boxes))


def definition(prediction: Prediction, targets: Targets, positive, alpha: float, gamma: float):
    """The sum over images, queries and classes."""
    total = 0.0
    for image, (queries, matched) in enumerate(INDICES):
        scores = prediction.logits[image].detach().sigmoid()
        iou = overlaps(prediction, targets, image)
        partner = dict(zip(queries.tolist(), matched.tolist(), strict=True))
        label = targets[image]["labels"]
        quality = {q: float(scores[q, label[t]]) ** 0.25 * float(iou[q, t]) ** 0.75
                   for q, t in partner.items()}  # fmt: skip
        for q in range(QUERIES):
            for k in range(CLASSES):
                p = float(scores[q, k])
                t = partner.get(q)
                if t is not None and label[t] == k:
                    rivals = [o for o, other in partner.items() if other == t]
                    rank = sum(quality[o] > quality[q] for o in rivals)
                    total += positive(p, float(iou[q, t]), rank)
                else:
                    total += alpha * p**gamma * bce(p, 0)
    return total / 3  # targets


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_papers_sum(name):
    loss, positive, alpha, gamma = CASES[name]
    prediction, targets = batch()
    criterion = SetCriterion(CLASSES, HungarianMatcher(), {}, class_loss=loss, terms=[])
    found = criterion([prediction], targets)
    assert list(found) == ["loss_class"]
    expected = definition(prediction, targets, positive, alpha, gamma)
    assert found["loss_class"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    """By finite differences of the definition; weights that the papers detach stay as they are."""
    loss, positive, alpha, gamma = CASES[name]
    prediction, targets = batch()
    criterion = SetCriterion(CLASSES, HungarianMatcher(), {}, class_loss=loss, terms=[])
    criterion([prediction], targets)["loss_class"].backward()
    grad = prediction.logits.grad
    score = prediction.logits.detach().sigmoid()
    label, (iou, p) = 2, (overlaps(prediction, targets, 0)[4, 0].item(), score[0, 4, 2].item())
    (of_pairs,) = pairs(prediction, targets, loss).values()
    rank = of_pairs[0].item()
    fixed = {"iou_aware": lambda x: bce(x, math.exp(-rank / 1.5) * p**0.25 * iou**0.75)}
    slope = finite(fixed.get(name, lambda x: positive(x, iou, rank)), p)
    assert grad[0, 4, label].item() == pytest.approx(slope / 3, rel=1e-5)
    p = score[1, 0, 3].item()
    detached = name in ("varifocal", "matchability")
    negative = lambda x: alpha * (p if detached else x) ** gamma * bce(x, 0)  # noqa: E731
    assert grad[1, 0, 3].item() == pytest.approx(finite(negative, p) / 3, rel=1e-5)


def finite(function, p: float, step: float = 1e-6) -> float:
    """Derivative by the logit of ``p``."""
    return (function(p + step) - function(p - step)) / (2 * step) * p * (1 - p)


def pairs(prediction: Prediction, targets: Targets, loss: nn.Module) -> dict[str, Tensor]:
    class Spy(nn.Module):
        def forward(self, pairs: MatchedPairs, step: Step) -> dict[str, Tensor]:
            logits = prediction.logits.detach()[pairs.image, pairs.query, pairs.labels]
            quality = logits.sigmoid() ** 0.25 * pairs.iou**0.75
            return {"ranks": pairs.rank(quality)}

    return SetCriterion(CLASSES, HungarianMatcher(), {}, [], terms=[Spy()])([prediction], targets)


def test_no_gradient_reaches_the_boxes():
    for loss, *_ in CASES.values():
        prediction, targets = batch()
        prediction.boxes.requires_grad_()
        criterion = SetCriterion(CLASSES, HungarianMatcher(), {}, class_loss=loss, terms=[])
        criterion([prediction], targets)["loss_class"].backward()
        assert prediction.boxes.grad is None


@pytest.mark.parametrize("name", CASES)
def test_box_losses_keep_their_gradient(name):
    """Whatever the class loss asked of the pairs before them, and without gradient."""
    grads = []
    for loss in (FocalClassLoss(), CASES[name][0]):
        prediction, targets = batch()
        prediction.boxes.requires_grad_()
        losses = SetCriterion(CLASSES, HungarianMatcher(), {}, class_loss=loss)(
            [prediction], targets
        )
        (losses["loss_bbox"] + losses["loss_giou"]).backward()
        grads.append(prediction.boxes.grad)
    assert grads[0].abs().sum() > 0
    assert torch.equal(*grads)


def test_losses_of_one_name_are_refused():
    prediction, targets = batch()
    criterion = SetCriterion(CLASSES, HungarianMatcher(), {}, terms=[BoxL1Loss(), BoxL1Loss()])
    with pytest.raises(ValueError, match="have a loss 'loss_bbox'"):
        criterion([prediction], targets)


@pytest.mark.parametrize("name", CASES)
def test_without_targets_and_queries(name):
    none = [{"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}] * 2
    criterion = SetCriterion(CLASSES, HungarianMatcher(), {}, class_loss=CASES[name][0])
    logits = torch.zeros(2, 3, CLASSES, requires_grad=True)
    losses = criterion([Prediction(logits, torch.rand(2, 3, 4, requires_grad=True))], none)
    sum(losses.values()).backward()
    assert logits.grad.gt(0).all()
    empty = criterion([Prediction(logits[:, :0], torch.zeros(2, 0, 4))], none)
    assert all(value == 0 for value in empty.values())


def test_pairs_know_overlap_rank_and_whatever_targets_have():
    prediction, targets = batch()
    for i, target in enumerate(targets):
        target["masks"] = torch.full((len(target["labels"]), 2 + i, 5 - i), 1 + i)
    seen = {}

    class Look(nn.Module):
        def forward(self, pairs: MatchedPairs, step: Step) -> dict[str, Tensor]:
            seen.update(pairs=pairs, step=step)
            return {}

    criterion = SetCriterion(CLASSES, HungarianMatcher(), {}, [], terms=[Look()])
    other = Prediction(prediction.logits, prediction.boxes, "_0", auxiliary=True)
    assert criterion([prediction, other], targets) == {}
    assert len(seen["step"].pairs) == 2 and seen["step"].last.prediction is prediction
    own = seen["step"].pairs[0]
    expected = torch.stack([overlaps(prediction, targets, i)[q, t]
                            for i, (qs, ts) in enumerate(INDICES)
                            for q, t in zip(qs, ts, strict=True)])  # fmt: skip
    assert_close(own.iou, expected)
    # the first and the third pair are of one target
    assert own.rank(torch.tensor([0.2, 0.9, 0.5, 0.1])).tolist() == [1, 0, 0, 0]
    assert own.rank(torch.tensor([0.7, 0.0, 0.5, 0.1])).tolist() == [0, 0, 1, 0]
    masks = own.of("masks")
    assert masks.shape == (4, 4, 5)
    assert masks[0, :2].eq(1).all() and masks[0, 2:].eq(0).all()
    assert masks[3, :3, :4].eq(2).all() and masks[3, 3].eq(0).all() and masks[3, :, 4].eq(0).all()
    with pytest.raises(ValueError, match=r"asks for 'depth', but targets have only .*masks"):
        own.of("depth")
    prediction.extras["quality"] = torch.rand(3, QUERIES)
    said = [prediction.extras["quality"][i, q] for i, (qs, _) in enumerate(INDICES) for q in qs]
    assert_close(own.predicted("quality"), torch.stack(said))
    with pytest.raises(ValueError, match=r"asks for 'masks', .* and \['quality'\]"):
        own.predicted("masks")


def test_a_term_may_compare_layers():
    """Self-distillation: each layer is to be like the last."""

    class Distill(nn.Module):
        def forward(self, pairs: MatchedPairs, step: Step) -> dict[str, Tensor]:
            if pairs is step.last:
                return {}
            teacher = step.last.prediction.boxes.detach()
            return {"loss_like": (pairs.prediction.boxes - teacher).abs().sum() / pairs.num_boxes}

    prediction, targets = batch()
    first = Prediction(prediction.logits, prediction.boxes + 0.1, "_0", prediction.supervision)
    criterion = SetCriterion(CLASSES, HungarianMatcher(), {}, terms=[Distill()])
    losses = criterion([prediction, first], targets)
    assert list(losses) == ["loss_class", "loss_class_0", "loss_like_0"]
    assert losses["loss_like_0"].item() == pytest.approx(0.1 * 3 * QUERIES * 4 / 3)
