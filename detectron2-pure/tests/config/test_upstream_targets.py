"""What the configs of the public detrex build is here, by its name and with its arguments.

``data/upstream_targets.json`` has every class and function of detectron2 that its 118 configs, when
resolved, refer to, with each set of argument names.
"""

import inspect
import json
from pathlib import Path

import pytest
from detectron2.utils.registry import locate

TARGETS = json.loads((Path(__file__).parent / "data" / "upstream_targets.json").read_text())

# What a training adds to a config before it builds it.
ADDED = {"detectron2.solver.build.get_default_optimizer_params": ["model"]}


@pytest.mark.parametrize("name", TARGETS)
def test_target(name):
    target = locate(name)
    assert callable(target)
    for arguments in filter(None, TARGETS[name]):
        inspect.signature(target).bind(**dict.fromkeys(arguments + ADDED.get(name, [])))
