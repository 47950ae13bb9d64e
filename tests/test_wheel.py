"""The wheel, built and installed elsewhere: are the configs in it, and do they work from there?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import detectron2
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

SMALL_MODEL = """
import sys
from pathlib import Path

import detrex
from detectron2.config import instantiate
from detrex.config import get_config, get_config_file

installed = Path(sys.argv[1])
assert Path(detrex.__file__).is_relative_to(installed), detrex.__file__
assert Path(get_config_file("common/train.py")).is_relative_to(installed)
assert get_config("common/train.py").train.max_iter == 90000

cfg = get_config("dab_deformable_detr/dab_deformable_detr_r50_50ep.py")
cfg.model.backbone.stages.depth = 18
cfg.model.embed_dim = 32
cfg.model.num_classes = 3
cfg.model.transformer.encoder.num_layers = 1
cfg.model.transformer.decoder.num_layers = 1
model = instantiate(cfg.model)
print(type(model).__name__, model.num_classes)
"""


def run(*command: str, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves its own folders beside what it builds."""
    pytest.importorskip("pip")
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        if (CHECKOUT / name).is_file():
            shutil.copy(CHECKOUT / name, source)
    for name in ("detrex", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / name, source / name, ignore=ignored)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q")
    run(*pip, "wheel", *options, "-w", str(source / "dist"), str(source))
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_every_config(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {f"detrex/{p.relative_to(CHECKOUT / 'detrex')}" for p in python_files("detrex")}
    configs = {
        f"detrex/config/configs/{p.relative_to(CHECKOUT / 'configs')}"
        for p in python_files("configs")
    }
    assert package | configs <= inside
    assert any(name.endswith("LICENSE") for name in inside)
    top = {name.split("/")[0] for name in inside}
    assert top == {"detrex", wheel.name.split("-py3")[0] + ".dist-info"}


def test_an_installed_wheel_builds_a_model_from_a_config(wheel, tmp_path):
    installed = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "-q", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    detectron2_root = str(Path(detectron2.__file__).resolve().parent.parent)
    # `-P` and a directory of its own keep the checkout out of the import path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), detectron2_root])}
    script = tmp_path / "small_model.py"
    script.write_text(SMALL_MODEL)
    output = run(sys.executable, str(script), str(installed), cwd=tmp_path, env=environment)
    assert output.split() == ["DETR", "3"]


def python_files(folder: str) -> list[Path]:
    return [p for p in (CHECKOUT / folder).rglob("*.py") if "__pycache__" not in p.parts]
