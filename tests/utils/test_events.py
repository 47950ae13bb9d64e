from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from detrex.config import get_config
from detrex.utils.events import WandbWriter


class Recorder:
    """What the writer uses of the wandb package."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = False

    def init(self, **arguments: Any) -> SimpleNamespace:
        self.arguments = arguments
        return SimpleNamespace(
            log=lambda values, step: self.logged.append((values, step)), finish=self.finish
        )

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def cfg():
    return OmegaConf.create({"train": get_config("common/train.py").train})


def test_each_value_is_sent_once(cfg, monkeypatch):
    wandb = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    writer = WandbWriter(cfg)
    assert wandb.arguments["project"] == "detrex"
    assert wandb.arguments["config"]["train"]["max_iter"] == 90000
    with EventStorage(0) as storage:
        storage.put_scalar("total_loss", 2.0)
        writer.write()
        storage.step()
        storage.put_scalar("bbox/AP", 40.0)
        writer.write()
        writer.write()
    writer.close()
    assert wandb.logged == [({"total_loss": 2.0}, 0), ({"bbox/AP": 40.0}, 1)]
    assert wandb.finished


def test_without_the_package_it_says_what_to_install(cfg, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="pip install wandb"):
        WandbWriter(cfg)
