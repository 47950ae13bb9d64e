"""Packages beside configs, imported relatively by them."""

from __future__ import annotations

import pickle
import sys

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig

FILES = {
    "modeling/__init__.py": "from .net import Net\nfrom . import options",
    "modeling/net.py": "from .parts.head import Head\nclass Net:\n    def __init__(self, width):\n"
    "        self.head = Head(width)",
    "modeling/parts/__init__.py": "",
    "modeling/parts/head.py": "from .. import options\nclass Head:\n"
    "    def __init__(self, width):\n        self.width = width * options.SCALE",
    "modeling/options.py": "SCALE = 2\ndefaults = {'width': 3}",
    "modeling/unused.py": "x = 1",
    "configs/models/net.py": "from detectron2.config import LazyCall as L\n"
    "from ...modeling.net import Net\nfrom ...modeling.options import defaults\n"
    "model = L(Net)(width=defaults.width)",
    "configs/net.py": "from .models.net import model\nmodel.width = 5",
    "configs/whole.py": "from detectron2.config import LazyCall as L\n"
    "from ..modeling import Net, unused\nmodel = L(Net)(width=unused.x)",
}


@pytest.fixture
def project(tmp_path):
    for name, text in FILES.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    before = set(sys.modules)
    yield tmp_path / "project"
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(project, name):
    return LazyConfig.load(str(project / "configs" / name))


def test_a_package_is_imported_as_one(project):
    """With relative imports of its own, and once: its classes are the same for all configs."""
    net, other = load(project, "net.py").model, load(project, "whole.py").model
    assert net._target_ is other._target_
    built = instantiate(net)
    assert built.head.width == 10 and instantiate(other).head.width == 2
    assert type(pickle.loads(pickle.dumps(built))) is type(built)


def test_data_of_a_package_is_a_config_of_ones_own(project):
    (project / "configs/change.py").write_text(
        "from ..modeling.options import defaults\ndefaults.width = 7\nmodel = defaults"
    )
    changed = load(project, "change.py").model
    assert isinstance(changed, DictConfig) and changed.width == 7
    assert load(project, "models/net.py").model.width == 3


def test_a_package_that_has_a_name_keeps_it(project, monkeypatch):
    monkeypatch.syspath_prepend(project.parent)
    net = load(project, "net.py").model
    from project.modeling import Net

    assert net._target_ is Net


def test_two_packages_of_one_name(project, tmp_path):
    other = tmp_path / "other"
    (other / "modeling").mkdir(parents=True)
    (other / "modeling/__init__.py").write_text("class Net:\n    pass")
    (other / "configs").mkdir()
    (other / "configs/net.py").write_text("from ..modeling import Net\nmodel = {'net': Net}")
    assert load(other, "net.py").model.net is not load(project, "net.py").model._target_


def test_configs_in_packages_stay_configs(project):
    (project / "configs/__init__.py").write_text("")
    (project / "configs/models/__init__.py").write_text("")
    first = load(project, "net.py").model
    assert first.width == 5
    first.width = 8
    assert load(project, "net.py").model.width == 5


def test_errors_of_a_package_name_the_config(project):
    (project / "modeling/broken.py").write_text("1 / 0")
    (project / "configs/broken.py").write_text("from ..modeling.broken import x\ny = {'x': x}")
    with pytest.raises(ZeroDivisionError, match=r"configs/broken.py, line 1, failed"):
        load(project, "broken.py")
    (project / "modeling/broken.py").write_text("x = 1 + 1")
    assert load(project, "broken.py").y.x == 2
