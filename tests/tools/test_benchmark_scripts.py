"""What the scripts in benchmarks/ share, by the one that is over in a moment."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.testing import assert_close

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("common", "deform_attn"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("deform_attn")
    monkeypatch.setattr(module, "SHAPES", [(6, 8), (3, 4)])
    monkeypatch.setattr(module, "TOKENS", 6 * 8 + 3 * 4)
    return module


def test_every_way_is_measured_beside_ours_and_written(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    path = tmp_path / "result.json"
    arguments = ["--repeats", "2", "--only", "forward", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["deform_attn.py", *arguments])
    script.main()
    content = json.loads(path.read_text())
    assert content["setting"]["repeats"] == 2
    rates = {"matmul GFLOP/s, torch.float32"}
    works = {f"{s}, float32, {w}" for s in ("encoder", "decoder")
             for w in ("forward", "forward and backward")}  # fmt: skip
    assert content["results"].keys() == rates | works
    ways = list(script.functions(script.torch.device("cpu")))
    for name in works:
        rows = content["results"][name]
        assert [key for key in rows if key != "relative difference"] == ways
        assert "speedup_of_ours" not in rows[ways[0]]
        if len(ways) > 1:
            assert rows["ours, pytorch"]["speedup_of_ours"]["runs"] == 2
    assert all(
        wrong < 1e-4
        for name in works
        for wrong in content["results"][name].get("relative difference", {}).values()
    )
    assert "without transformers, which can't be imported" in capsys.readouterr().out


def test_a_way_that_is_wrong_shows(script):
    expected, other = script.torch.tensor([1.0, 4.0]), script.torch.tensor([1.0, 3.0])
    works = {"ours, numba": lambda: other, "ours, pytorch": lambda: expected}
    assert script.differences(works) == {"ours, numba": 0.25, "ours, pytorch": 0.0}


def test_the_criterion_beside_one_layer_at_a_time(monkeypatch, tmp_path):
    """The script itself compares the losses of both ways."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    script = importlib.import_module("criterion")
    sizes = ["--layers", "2", "--queries", "7", "--classes", "3", "--images", "2", "--boxes", "2"]
    arguments = [*sizes, "--repeats", "2", "--output", str(tmp_path / "result.json")]
    monkeypatch.setattr(sys, "argv", ["criterion.py", *arguments])
    script.main()
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    assert list(results) == ["together", "layer by layer"]
    assert results["layer by layer"]["speedup_of_ours"]["runs"] == 2


def test_dcnv3_beside_grid_sample(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    script = importlib.import_module("dcnv3")
    monkeypatch.setattr(script, "LEVELS", [(4, 6, 32)])
    arguments = ["--repeats", "2", "--output", str(tmp_path / "result.json")]
    monkeypatch.setattr(sys, "argv", ["dcnv3.py", *arguments])
    script.main()
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    sizes = "4 x 6, 32 channels"
    assert list(results) == [f"{sizes}, forward", f"{sizes}, forward and backward"]
    x = script.inputs(4, 6, 32, torch.device("cpu"))
    for run in (script.forward, script.forward_backward):
        assert_close(run("ours", x), run("grid_sample", x))
    assert results[f"{sizes}, forward"]["grid_sample"]["speedup_of_ours"]["runs"] == 2


def test_how_far_detections_moved(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    script = importlib.import_module("half_precision")

    def found(*rows: tuple[float, int, float]) -> Instances:
        """Score, class and left edge of each detection."""
        scores, classes, left = zip(*rows, strict=True) if rows else ((), (), ())
        boxes = torch.tensor([[x, 0.0, 50.0, 50.0] for x in left])
        return Instances(
            (60, 60),
            pred_boxes=Boxes(boxes),
            scores=torch.tensor(scores),
            pred_classes=torch.tensor(classes),
        )

    of = found((0.9, 0, 10.0), (0.8, 1, 10.0), (0.5, 2, 3.0), (0.2, 0, 0.0))
    among = found((0.1, 1, 10.5), (0.7, 0, 12.0), (0.6, 0, 9.0))
    inf = float("inf")
    expected = torch.tensor([[1.0, 0.3], [0.5, 0.7], [inf, 0.5]])
    assert_close(script.moved(of, among, 0.3), expected)
    assert script.moved(of, found(), 0.3)[:, 0].tolist() == [inf] * 3
    assert script.moved(found(), among, 0.3).shape == (0, 2)
    both = torch.cat(list(script.both_ways([of], [among], 0.3)))
    summary = script.summary(both)
    assert summary["detections"] == 5
    assert summary["within 1 pixel"] == 0.6
    assert summary["pixels"] == {"50%": 1.0, "90%": None, "99%": None, "100%": None}
    assert summary["largest change of a score"] == pytest.approx(0.7)
    json.dumps(summary, allow_nan=False)


def test_a_result_that_could_not_be_written_is_known_at_the_start(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["deform_attn.py", "--output", "no/such/folder/result.json"])
    with pytest.raises(SystemExit):
        script.main()
    assert "the folder of no/such/folder/result.json does not exist" in capsys.readouterr().err
