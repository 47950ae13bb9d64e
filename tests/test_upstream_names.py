"""Names of the public detrex: they can be imported, and take the arguments that are given there.

``reference/upstream_names.json`` has the lines by which its projects, configs and tools import, and
what its package defines with arguments, but for helpers that only serve their own file;
``reference/upstream_calls.json`` what its configs build.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import detrex.modeling

REFERENCE = Path(__file__).parent / "reference"
NAMES = json.loads((REFERENCE / "upstream_names.json").read_text())
CALLS = json.loads((REFERENCE / "upstream_calls.json").read_text())
DEFINITIONS = {f"{m}.{n}": args for m, d in NAMES["definitions"].items() for n, args in d.items()}

# What nothing here has a use for.
LEFT_OUT = {
    "detrex.layers.dcn_v3.DCNv3Function": set(),
}


def find(dotted: str) -> Any:
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


def refused(target: Any, arguments: list[str]) -> set[str]:
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return set()
    return set(arguments) - set(parameters)


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m, names in NAMES["imports"].items() for name in names]
)
def test_import_lines(module, name):
    exec(f"from {module} import {name}", {})


@pytest.mark.parametrize("dotted", sorted(CALLS.keys() | DEFINITIONS.keys()))
def test_definitions_and_their_arguments(dotted):
    target = find(dotted)
    arguments = CALLS.get(dotted, []) + DEFINITIONS.get(dotted, [])
    assert not refused(target, arguments)


def test_every_name_of_modeling_is_where_it_says():
    for name in detrex.modeling.__all__:
        assert getattr(detrex.modeling, name) is find(f"detrex.modeling.{name}")
    assert set(detrex.modeling.__all__) == set(detrex.modeling._ROOMS) <= set(dir(detrex.modeling))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        detrex.modeling.nothing  # noqa: B018


@pytest.mark.parametrize("package", ["modeling", "layers", "utils", "data", "config"])
def test_packages_import_no_networks(package):
    """Names are there when they are used; until then nothing large is imported."""
    code = f"import sys, detrex.{package}; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    torch_alone = package in ("modeling", "layers", "utils")
    assert not ({"timm", "detectron2"} if torch_alone else {"timm"}) & set(modules)
