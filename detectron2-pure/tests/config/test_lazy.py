"""LazyCall, and loading and saving of config files."""

import builtins
import os
import sys
import textwrap
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from detectron2.config import ConfigError, LazyConfig, instantiate
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.structures import BoxMode
from omegaconf import DictConfig, ListConfig, OmegaConf

ROOT = Path(__file__).parent / "data" / "root.py"


@pytest.fixture
def write(tmp_path):
    """Write config files: ``write(name, text)`` returns the path."""

    def _write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return _write


# LazyCall ---------------------------------------------------------------------------------


def test_lazy_call_keeps_target_and_arguments():
    cfg = L(torch.nn.Linear)(in_features=2, out_features="${.in_features}")
    assert cfg._target_ is torch.nn.Linear
    assert cfg.out_features == 2
    assert isinstance(cfg, DictConfig)


@pytest.mark.parametrize("target", [3, None, ["torch.nn.Linear"]])
def test_lazy_call_refuses_what_cannot_be_called(target):
    with pytest.raises(TypeError, match="LazyCall"):
        L(target)


def test_lazy_call_takes_keywords_only():
    with pytest.raises(TypeError):
        L(torch.nn.Linear)(2, 3)


def test_lazy_call_of_dataclass_and_dict():
    assert instantiate(L(ShapeSpec)(channels=3)) == ShapeSpec(channels=3)
    assert instantiate(L(dict)(a=1)) == {"a": 1}


def test_lazy_call_holds_live_objects():
    layer = torch.nn.Linear(1, 1)

    def func(x):
        return x

    cfg = L(dict)(layer=layer, func=func, kind=torch.nn.ReLU)
    assert cfg.layer is layer
    assert cfg.func is func
    assert cfg.kind is torch.nn.ReLU


# Loading ----------------------------------------------------------------------------------


def test_load_returns_public_configs():
    cfg = LazyConfig.load(str(ROOT))
    assert isinstance(cfg, DictConfig)
    assert set(cfg) == {"dir1a_dict", "dir1b_dict", "dir1b_dict_from_a", "lazyobj", "plain"}
    assert cfg.plain.folder == str(ROOT)
    assert cfg.plain.nested.helped == 4
    assert cfg.lazyobj._target_ is count


def test_imported_files_share_no_state():
    cfg = LazyConfig.load(str(ROOT))
    assert cfg.dir1a_dict == {"a": "modified", "b": 2}
    assert cfg.dir1b_dict_from_a == {"a": "from b", "b": 2}
    assert cfg.dir1b_dict == {"a": 1}
    assert LazyConfig.load(str(ROOT)).dir1a_dict is not cfg.dir1a_dict


def test_load_keys():
    text = LazyConfig.load(str(ROOT), "dir1a_str")
    assert text == "base_a_1"
    plain, listed = LazyConfig.load(str(ROOT), ("plain", "listed"))
    assert isinstance(plain, DictConfig)
    assert listed == [1, 2]
    with pytest.raises(KeyError, match=r"root.py has no 'plian'; it has .*plain"):
        LazyConfig.load(str(ROOT), "plian")


def test_load_rel_starts_at_the_calling_file():
    assert LazyConfig.load_rel("data/root.py").dir1a_dict.b == 2
    code = compile("LazyConfig.load_rel('x.py')", "<string>", "exec")
    with pytest.raises(ValueError, match="<string>"):
        exec(code, {"LazyConfig": LazyConfig})


def test_relative_path_of_the_main_file(write, tmp_path, monkeypatch):
    write("a/b/main.py", "from ...base import x\nfrom ..side import y\n")
    write("base.py", "x = dict(v=1)")
    write("a/side.py", "y = dict(v=2)")
    monkeypatch.chdir(tmp_path / "a" / "b")
    cfg = LazyConfig.load("main.py")
    assert (cfg.x.v, cfg.y.v) == (1, 2)


def test_star_and_late_relative_imports(write):
    write("base.py", "x = dict(v=1)\n_y = 3\n")
    main = write(
        "main.py",
        """
        from .base import *

        def late():
            from .base import _y
            return _y

        z = dict(v=late(), seen="_y" in globals())
        """,
    )
    cfg = LazyConfig.load(main)
    assert cfg.x.v == 1
    assert cfg.z == {"v": 3, "seen": False}


def test_dataclass_defined_in_a_config(write):
    path = write(
        "c.py",
        """
        from __future__ import annotations
        from dataclasses import dataclass

        @dataclass
        class Point:
            x: int = 3

        made = dict(x=Point().x)
        """,
    )
    assert LazyConfig.load(path).made.x == 3


def test_yaml_config(write):
    path = write("c.yaml", "model: {_target_: torch.nn.Linear, in_features: 2, out_features: 3}\n")
    cfg = LazyConfig.load(path)
    assert instantiate(cfg.model).weight.shape == (3, 2)
    assert LazyConfig.load(path, "model").in_features == 2


# Failing loads ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def interpreter_stays_as_it_is():
    """No test here, failing config or not, may leave traces in the interpreter."""
    before = builtins.__import__
    yield
    assert builtins.__import__ is before
    assert not [name for name in sys.modules if name.startswith("_config_")]


def test_missing_file_names_close_ones(write):
    write("dino_r50.py", "x = {}")
    write("detr_r50.py", "x = {}")
    missing = write("keep.txt", "").replace("keep.txt", "dino_r5.py")
    with pytest.raises(FileNotFoundError, match=r"dino_r5.py does not exist.*dino_r50.py"):
        LazyConfig.load(missing)
    with pytest.raises(FileNotFoundError, match=r"nowhere/x.py does not exist \(its folder"):
        LazyConfig.load(missing.replace("dino_r5.py", "nowhere/x.py"))


def test_wrong_suffix():
    with pytest.raises(ValueError, match="has to be a"):
        LazyConfig.load("config.json")


def test_error_in_config_names_file_and_line(write):
    path = write("bad.py", "x = 1\n\ndef f():\n    return {}['key']\n\ny = f()\n")
    with pytest.raises(KeyError, match=r"bad.py, line 4, failed with KeyError: 'key'") as info:
        LazyConfig.load(path)
    assert isinstance(info.value, ConfigError)
    assert type(info.value.__cause__) is KeyError


def test_error_in_imported_config_names_that_one(write):
    write("bad.py", "x = 1 / 0\n")
    main = write("main.py", "from .bad import x\n")
    with pytest.raises(ZeroDivisionError, match=r"bad.py, line 1, failed"):
        LazyConfig.load(main)


def test_syntax_error(write):
    with pytest.raises(SyntaxError, match=r"bad.py, line 2 has a syntax error") as info:
        LazyConfig.load(write("bad.py", "x = 1\nx = = 2\n"))
    assert info.value.lineno == 2


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("from . import x", "relative import"),
        ("from .missing import x", "missing.py, but that does not exist"),
        ("from .folder import x", "is a folder"),
        ("from .good import y", "cannot import name 'y'"),
    ],
)
def test_bad_relative_imports(write, statement, text):
    write("good.py", "x = {}")
    write("folder/inner.py", "x = {}")
    with pytest.raises(ImportError, match=text):
        LazyConfig.load(write("main.py", statement))


def test_circular_import(write):
    write("a.py", "from .b import x")
    with pytest.raises(ImportError, match=r"circle: .*b.py -> .*a.py -> .*b.py"):
        LazyConfig.load(write("b.py", "from .a import x"))


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.getpid []",
        "!!python/object/new:os.getpid []",
        "!!python/module:os",
        "!!python/name:antigravity.fly ''",
    ],
)
def test_yaml_runs_nothing(write, tag, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: pytest.fail("code of a yaml file ran"))
    with pytest.raises(ConfigError, match=r"c.yaml cannot be read"):
        LazyConfig.load(write("c.yaml", f"x: {tag}\n"))
    assert "antigravity" not in sys.modules


def test_yaml_numbers_and_texts(write, tmp_path):
    cfg = LazyConfig.load(write("c.yaml", "a: 1e-4\nb: '1e-4'\nc: 2E5\nd: 1e4x\ne: -1.5e3\n"))
    values = {"a": 1e-4, "b": "1e-4", "c": 2e5, "d": "1e4x", "e": -1500.0}
    assert cfg == values and isinstance(cfg.c, float)
    path = str(tmp_path / "saved.yaml")
    LazyConfig.save(cfg, path)
    assert LazyConfig.load(path) == values
    assert LazyConfig.load(write("empty.yaml", "")) == {}


def test_yaml_python_data(write):
    path = write(
        "c.yaml",
        """
        shape: !!python/object:detectron2.layers.shape_spec.ShapeSpec {channels: 3, stride: 8}
        pair: !!python/tuple [1, 2]
        norm: !!python/name:torch.nn.modules.normalization.LayerNorm ''
        """,
    )
    cfg = LazyConfig.load(path)
    assert instantiate(cfg.shape) == ShapeSpec(channels=3, stride=8)
    assert cfg.pair == [1, 2]
    assert cfg.norm is torch.nn.LayerNorm


# Saving -----------------------------------------------------------------------------------


@dataclass
class Point:
    x: int = 1
    y: int = 2


def test_save_and_load(tmp_path):
    cfg = OmegaConf.create(
        {
            "model": L(torch.nn.Linear)(in_features="${n}", out_features=3),
            "n": 2,
            "kind": torch.nn.LayerNorm,
            "shapes": {"p1": ShapeSpec(channels=4)},
            "pair": (1, 2.5),
            "nothing": None,
            "path": tmp_path,
            "mode": BoxMode.XYWH_ABS,
            "number": np.float64(0.5),
        },
        flags={"allow_objects": True},
    )
    path = str(tmp_path / "config.yaml")
    LazyConfig.save(cfg, path)
    assert os.listdir(tmp_path) == ["config.yaml"]
    loaded = LazyConfig.load(path)
    assert OmegaConf.to_container(loaded.model, resolve=False) == {
        "_target_": "torch.nn.Linear",
        "in_features": "${n}",
        "out_features": 3,
    }
    assert instantiate(loaded.model).weight.shape == (3, 2)
    assert loaded.kind is torch.nn.LayerNorm
    assert loaded.shapes.p1.channels == 4
    assert loaded.pair == [1, 2.5]
    assert loaded.nothing is None
    assert loaded.path == str(tmp_path)
    assert (loaded.mode, loaded.number) == (1, 0.5)
    assert list(loaded) == list(cfg)


def test_save_of_what_yaml_cannot_hold(tmp_path, caplog):
    cfg = DictConfig({"lr": {"factor": lambda name: 7, "base": 0.1}}, flags={"allow_objects": True})
    path = str(tmp_path / "config.yaml")
    LazyConfig.save(cfg, path)
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "config.yaml.pkl"]
    assert "base: 0.1" in Path(path).read_text()
    assert "cannot be loaded again" in caplog.text
    with pytest.raises(ConfigError, match=r"was a Python object that yaml cannot hold"):
        LazyConfig.load(path)
    pickled = cloudpickle.loads(Path(path + ".pkl").read_bytes())
    assert pickled.lr.factor("x") == 7


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    LazyConfig.save(OmegaConf.create({"a": 1}), str(path))

    def full_disk(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        LazyConfig.save(OmegaConf.create({"a": 2}), str(path))
    assert LazyConfig.load(str(path)).a == 1
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_lambda_of_a_config_file_survives_pickling(write, tmp_path):
    cfg = LazyConfig.load(write("c.py", "factor = 3\nx = dict(f=lambda v: factor * v)\n"))
    LazyConfig.save(cfg, str(tmp_path / "c.yaml"))
    again = cloudpickle.loads((tmp_path / "c.yaml.pkl").read_bytes())
    assert again.x.f(2) == 6


# to_py ------------------------------------------------------------------------------------


def test_to_py():
    cfg = OmegaConf.create(
        {
            "train": {"max_iter": 5, "out": 'a"b', "amp": {"enabled": False}},
            "model": L(torch.nn.Linear)(in_features=2, out_features=3),
            "long": L(dict)(
                first=L("pkg.mod.function_with_a_long_name")(argument=[1, 2, 3]),
                second={"key": "a value that does not fit into the line", "other": None},
            ),
            "many": [1, "b", 3.5],
        },
        flags={"allow_objects": True},
    )
    assert LazyConfig.to_py(cfg) == textwrap.dedent(
        """\
        cfg.train.max_iter = 5
        cfg.train.out = 'a"b'
        cfg.train.amp.enabled = False
        cfg.model = torch.nn.Linear(in_features=2, out_features=3)
        cfg.long = builtins.dict(
            first=pkg.mod.function_with_a_long_name(argument=[1, 2, 3]),
            second={"key": "a value that does not fit into the line", "other": None},
        )
        cfg.many = [1, "b", 3.5]
        """
    )
    assert LazyConfig.to_py(cfg.train.amp, prefix="") == "enabled = False\n"


def test_to_py_is_laid_out_as_black_would():
    word, long = "a text of forty letters, more or less ..", "a" * 78
    cfg = OmegaConf.create(
        {
            "call": L("f.g")(first=word, second=word[:20]),
            "list": [word, word],
            "alone": [L("f.g")(only={"key": word, "other": word})],
            "text": long,
        },
        flags={"allow_objects": True},
    )
    assert LazyConfig.to_py(cfg) == textwrap.dedent(
        f"""\
        cfg.call = f.g(
            first="{word}", second="{word[:20]}"
        )
        cfg.list = [
            "{word}",
            "{word}",
        ]
        cfg.alone = [
            f.g(
                only={{
                    "key": "{word}",
                    "other": "{word}",
                }}
            )
        ]
        cfg.text = (
            "{long}"
        )
        """
    )


def test_list_config_survives_load(write):
    cfg = LazyConfig.load(
        write("c.py", "from omegaconf import OmegaConf\nx = OmegaConf.create([1])")
    )
    assert isinstance(cfg.x, ListConfig)
