"""The sweep itself, over one small member of every family of timm, and what it notices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from detrex.modeling.backbone import TimmBackbone
from tools import sweep_backbones
from tools.sweep_backbones import KINDS, Result, sweep_one

SWEPT = json.loads((Path(__file__).parents[2] / "docs" / "backbones_swept.json").read_text())


@pytest.fixture
def backbone() -> TimmBackbone:
    with torch.device("meta"):
        return TimmBackbone("test_resnet")


@pytest.fixture(autouse=True)
def on_the_meta_device():
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("family", SWEPT["families"])
def test_one_small_member_of_every_family(family):
    row = SWEPT["families"][family]
    result = sweep_one(row["smallest"])
    expected = next(kind for kind in KINDS if kind in row)
    assert (result.kind, result.detail if expected in KINDS[:2] else "") == (expected, "")


@pytest.mark.skipif(timm.__version__ != SWEPT["timm"], reason="the table is of another timm")
def test_the_table_is_of_all_families_and_architectures():
    families = {name: members for name, members in sweep_backbones.families().items() if members}
    assert SWEPT["families"].keys() == families.keys()
    assert SWEPT["architectures"] == sum(map(len, families.values()))
    for kind, count in SWEPT["counts"].items():
        assert count == sum(row.get(kind, 0) for row in SWEPT["families"].values())


def test_true_promises_are_kept(backbone):
    assert sweep_backbones.check_promises(backbone) == []


def test_a_wrong_stride_is_noticed(backbone, monkeypatch):
    promised = {**backbone.output_shape(), "p3": ShapeSpec(channels=192, stride=32)}
    monkeypatch.setattr(backbone, "output_shape", lambda: promised)
    (breach,) = sweep_backbones.check_promises(backbone)
    assert breach.startswith("p3 is (2, 192, 10, 12) of (2, 3, 160, 192)")


def test_an_idle_parameter_is_noticed(backbone):
    backbone.extra = nn.Linear(1, 1, bias=False)
    assert sweep_backbones.check_promises(backbone) == [
        "1 parameters get no gradient, like extra.weight"
    ]


def test_a_batch_norm_that_stays_is_noticed(backbone, monkeypatch):
    monkeypatch.setattr(sweep_backbones, "freeze_all_norms", lambda network, name: network)
    assert sweep_backbones.check_promises(backbone) == ["freezing leaves BatchNorm2d"]


def test_the_table_counts_kinds_and_names_failures():
    results = [
        Result("test_resnet", "any size", 5),
        Result("resnet18", "any size", 3),
        Result("test_vit", "broken", 1, detail="why"),
    ]
    summary = sweep_backbones.summarize(results)
    assert summary["counts"] == {"any size": 2, "broken": 1}
    assert summary["families"]["resnet"] == {"any size": 2, "smallest": "resnet18"}
    assert summary["failures"] == {"broken": {"test_vit": "why"}}


@pytest.mark.parametrize(("kind", "code"), [("any size", 0), ("refused", 0), ("broken", 1)])
def test_the_exit_code_tells_of_broken_promises(monkeypatch, tmp_path, kind, code, capsys):
    class InThisProcess:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        map = staticmethod(map)

    monkeypatch.setattr(sweep_backbones, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(sweep_backbones, "sweep_one", lambda name: Result(name, kind))
    output = tmp_path / "swept.json"
    assert sweep_backbones.main(["--only", "test_vit*", "--output", str(output)]) == code
    assert json.loads(output.read_text())["counts"] == {kind: len(timm.list_models("test_vit*"))}
    assert f"test_vit: {kind}" in capsys.readouterr().out


def test_a_pattern_without_a_network_is_refused(capsys):
    with pytest.raises(SystemExit):
        sweep_backbones.main(["--only", "nothing*"])
    assert "no network like 'nothing*'" in capsys.readouterr().err
