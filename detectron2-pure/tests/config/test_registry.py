"""Objects by name."""

import collections

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import _convert_target_to_string, locate


class A:
    class B:
        pass


@pytest.mark.parametrize(
    "obj", [A, A.B, torch.nn.Linear, torch.nn.functional.relu, ShapeSpec, collections.Counter, dict]
)
def test_round_trip(obj):
    assert locate(_convert_target_to_string(obj)) is obj


def test_shortest_name():
    assert _convert_target_to_string(ShapeSpec) == "detectron2.layers.ShapeSpec"
    assert _convert_target_to_string(torch.nn.Linear) == "torch.nn.Linear"


class Catalog:
    def get(self):
        pass

    @classmethod
    def make(cls):
        pass


CATALOG = Catalog()


@pytest.mark.parametrize(
    ("method", "name"), [(CATALOG.get, "CATALOG.get"), (Catalog.make, "Catalog.make")]
)
def test_methods_of_objects_that_modules_hold(method, name):
    assert _convert_target_to_string(method) == f"{__name__}.{name}"
    assert locate(f"{__name__}.{name}") == method
    shortest = _convert_target_to_string(MetadataCatalog.get)
    assert shortest == "detectron2.data.MetadataCatalog.get"
    # an object that no module holds
    assert _convert_target_to_string(Catalog().get) == f"{__name__}.Catalog.get"


@pytest.mark.parametrize(
    "name", ["no_such_package.x", "torch.nn.Nope", "torch.nn.Linear.nope", "a..b", ""]
)
def test_unknown_names(name):
    with pytest.raises(ImportError, match="Cannot locate"):
        locate(name)


def test_module_that_fails_to_import_is_reported(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import surely_not_installed")
    (tmp_path / "raising_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"broken_module: No module named 'surely_not_installed'"):
        locate("broken_module.x")
    with pytest.raises(ImportError, match=r"raising_module failed: division by zero"):
        locate("raising_module.x")
