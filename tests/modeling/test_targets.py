"""Annotations as targets."""

from __future__ import annotations

import torch
import zoo
from detectron2.structures import BitMasks, PolygonMasks
from torch.testing import assert_close

from detrex.modeling.predictions import Supervision, map_targets
from detrex.modeling.targets import targets_from_instances


def made(batch: list[dict]) -> list[dict]:
    return targets_from_instances(batch, torch.device("cpu"), torch.float64)


def test_boxes_are_normalized():
    (target,) = made([zoo.image(40, 80, [(8, 4, 24, 36)], [2])])
    assert set(target) == {"labels", "boxes"}
    assert target["labels"].tolist() == [2]
    assert_close(target["boxes"], torch.tensor([[16 / 80, 20 / 40, 16 / 80, 32 / 40]]).double())


def test_masks_travel():
    x = zoo.image(4, 6, [(0, 0, 3, 2), (2, 1, 6, 4)], [0, 1])
    bits = torch.zeros(2, 4, 6, dtype=torch.bool)
    bits[0, :2, :3] = bits[1, 1:, 2:] = True
    x["instances"].gt_masks = BitMasks(bits)
    assert torch.equal(made([x])[0]["masks"], bits)
    corners = [[0, 0, 3, 0, 3, 2, 0, 2], [2, 1, 6, 1, 6, 4, 2, 4]]
    x["instances"].gt_masks = PolygonMasks([[torch.tensor(c).double().numpy()] for c in corners])
    assert torch.equal(made([x])[0]["masks"], bits)


def test_records_are_open():
    targets = [{"labels": torch.tensor([3, 1]), "boxes": torch.rand(2, 4), "depth": torch.ones(2)}]
    doubled = map_targets(targets, lambda name, rows: rows.repeat(2, *[1] * (rows.ndim - 1)))
    assert [len(rows) for rows in doubled[0].values()] == [4, 4, 4]
    (own,) = Supervision(class_agnostic=True).of(targets)
    assert own["labels"].tolist() == [0, 0]
    assert own["depth"] is targets[0]["depth"] and own["boxes"] is targets[0]["boxes"]
    assert Supervision(targets=doubled).of(targets) is doubled
