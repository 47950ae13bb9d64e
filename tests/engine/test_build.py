"""Pretrained weights are fetched when they are needed, and only then."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint import CheckpointError
from detrex.config import get_config
from detrex.engine.build import build_filled_model, build_model, build_resumed_model
from detrex.utils.pretrained import pretrained_skipped

PRETRAINED = 7.0


class Backbone(nn.Linear):
    """Counts how often its pretrained weights were fetched."""

    fetched = 0

    def __init__(self, width: int = 2) -> None:
        super().__init__(width, width)
        if not pretrained_skipped():
            Backbone.fetched += 1
            nn.init.constant_(self.weight, PRETRAINED)
            nn.init.constant_(self.bias, PRETRAINED)


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 1)


@pytest.fixture
def cfg(monkeypatch) -> DictConfig:
    monkeypatch.setattr(Backbone, "fetched", 0)
    train = get_config("common/train.py").train
    train.device = "cpu"
    model = L(Detector)(backbone=L(Backbone)())
    return DictConfig({"model": model, "train": train}, flags={"allow_objects": True})


@pytest.fixture
def saved(tmp_path):
    """Writes the weights of a detector, filled with ones, whose names begin like that."""

    def save(prefix: str = "") -> str:
        state = {
            name: torch.ones_like(value)
            for name, value in Detector(Backbone()).state_dict().items()
            if name.startswith(prefix)
        }
        Backbone.fetched = 0
        path = tmp_path / "weights.pth"
        torch.save({"model": state}, path)
        return str(path)

    return save


def values(module: nn.Module) -> set[float]:
    return set(module.weight.flatten().tolist())


def test_without_a_checkpoint_they_are_fetched(cfg):
    assert values(build_model(cfg).backbone) == {PRETRAINED}
    assert Backbone.fetched == 1


@pytest.mark.parametrize("build", [build_filled_model, build_resumed_model])
def test_a_checkpoint_with_a_backbone_needs_none(cfg, saved, build):
    model = build(cfg, saved())
    assert values(model.backbone) == values(model.head) == {1.0}
    assert Backbone.fetched == 0


def test_weights_of_the_backbone_alone_need_none(cfg, saved):
    assert values(build_filled_model(cfg, saved("backbone")).backbone) == {1.0}
    assert Backbone.fetched == 0


def test_a_checkpoint_without_a_backbone_leaves_the_pretrained_one(cfg, saved, caplog):
    path = saved("head")
    model = build_filled_model(cfg, path)
    assert values(model.backbone) == {PRETRAINED}
    assert values(model.head) == {1.0}
    assert Backbone.fetched == 1
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"{path} has nothing for 2 weights of the backbone")


def test_what_a_part_of_a_backbone_lacks_stays_pretrained(cfg, saved):
    path = saved("backbone.weight")
    with pytest.raises(CheckpointError, match=r"train\.allow_partial_backbone=true"):
        build_filled_model(cfg, path)
    assert Backbone.fetched == 0
    cfg.train.allow_partial_backbone = True
    model = build_filled_model(cfg, path)
    assert values(model.backbone) == {1.0}
    assert set(model.backbone.bias.tolist()) == {PRETRAINED}


class Normed(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({"p1": nn.LayerNorm(2)})


def test_a_network_fills_a_backbone_that_has_norms_besides(cfg, saved):
    path = saved("backbone")
    cfg.model.backbone = L(Normed)()
    assert values(build_filled_model(cfg, path).backbone) == {1.0}
    assert Backbone.fetched == 0


def test_a_pretrained_part_of_another_name_is_fetched(cfg, saved):
    """There, nobody could tell whether a checkpoint has filled it."""
    cfg.model = L(Named)(encoder=cfg.model.backbone)
    model = build_filled_model(cfg, saved("head"))
    assert values(model.encoder) == {PRETRAINED}


class Named(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(2, 1)


def test_weights_of_another_backbone_are_refused(cfg, saved):
    path = saved("backbone")
    cfg.model.backbone.width = 3
    with pytest.raises(CheckpointError, match="none of its weights has a place") as error:
        build_filled_model(cfg, path)
    assert 'train.init_checkpoint=""' in str(error.value)
    assert Backbone.fetched == 0


@pytest.mark.parametrize("prefix", ["head", "backbone"])
def test_a_checkpoint_of_another_model_is_not_resumed(cfg, saved, prefix):
    with pytest.raises(CheckpointError, match=r"is of another model: it doesn't fit 2 weights"):
        build_resumed_model(cfg, saved(prefix))
