"""The common configs against the values that upstream's recipes were measured to have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import LVISEvaluator
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig

from detrex.config import get_config, get_config_file

REFERENCE = json.loads((Path(__file__).parent / "data" / "common_reference.json").read_text())

# Keys of ours that the reference doesn't have, and values that differ on purpose.
OURS_ONLY = {
    "train.amp.dtype": "auto",
    "train.allow_partial_backbone": False,
    "train.grad_accum_steps": 1,
    "train.best_checkpoint.enabled": True,
    "train.best_checkpoint.metric": "bbox/AP",
    "AdamW.fused": True,
}
# Upstream insists on a GPU.
DIFFERENT = {"train.device": "auto"}


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key; a target becomes the object that it names."""
    if isinstance(node, dict | DictConfig):
        items = [(str(k), node[k]) for k in node]
    elif isinstance(node, list | tuple | ListConfig):
        items = [(str(i), v) for i, v in enumerate(node)]
    else:
        is_target = prefix.endswith("_target_") and isinstance(node, str)
        return {prefix: locate(node) if is_target else node}
    leaves: dict[str, Any] = {}
    for key, value in items:
        leaves.update(flat(value, f"{prefix}.{key}" if prefix else key))
    return leaves


@pytest.mark.parametrize("path", REFERENCE["configs"])
def test_common_configs_have_the_reference_values(path):
    ours, reference = flat(get_config(path)), flat(REFERENCE["configs"][path])
    for key, value in {**OURS_ONLY, **DIFFERENT}.items():
        if key in ours:
            assert ours.pop(key) == value
            reference.pop(key, None)
    assert ours == reference


@pytest.mark.parametrize("name", REFERENCE["coco_schedule_multipliers"]["values"])
def test_coco_schedules_multiply_the_learning_rate_as_the_reference_does(name):
    schedule = instantiate(get_config("common/coco_schedule.py")[name])
    where = REFERENCE["coco_schedule_multipliers"]["where"]
    values = REFERENCE["coco_schedule_multipliers"]["values"][name]
    assert [schedule(w) for w in where] == pytest.approx(values)


@pytest.mark.parametrize("case", range(len(REFERENCE["schedule_functions"])))
def test_schedule_functions_agree_with_the_reference(case, tmp_path):
    case = REFERENCE["schedule_functions"][case]
    arguments = ", ".join(f"{k}={v!r}" for k, v in case["kwargs"].items())
    source = Path(get_config_file(case["file"].removeprefix("configs/"))).read_text()
    user = tmp_path / "user.py"
    user.write_text(f"{source}\n\nschedule = {case['function']}({arguments})\n")
    schedule = instantiate(LazyConfig.load(str(user)).schedule)
    assert [schedule(w) for w in case["where"]] == pytest.approx(case["multiplier"])


def test_groups_follow_the_learning_rate_of_the_optimizer():
    optimizer = get_config("common/optim.py").AdamW
    optimizer.lr = 3e-4
    assert optimizer.params.base_lr == 3e-4


def test_custom_data_leaves_exactly_the_paths_to_the_user():
    dataloader = get_config("common/data/custom.py").dataloader
    leaves = flat(DictConfig({"d": dataloader}, flags={"allow_objects": True}).d.train.mapper)
    coco = flat(get_config("common/data/coco_detr.py").dataloader.train.mapper)
    assert leaves == coco


def test_custom_data_names_the_evaluator_after_the_test_set():
    dataloader = get_config("common/data/custom.py").dataloader
    dataloader.test.dataset.json_file = "val.json"
    dataloader.test.dataset.image_root = "images"
    assert dataloader.evaluator.dataset_name.json_file == "val.json"
    assert dataloader.evaluator.dataset_name.image_root == "images"


def test_lvis_is_coco_but_for_its_names_and_its_evaluator():
    lvis = flat(get_config("common/data/lvis_detr.py").dataloader)
    coco = flat(get_config("common/data/coco_detr.py").dataloader)
    differing = {key: value for key, value in lvis.items() if coco.pop(key, None) != value}
    assert differing == {
        "train.dataset.names": "lvis_v1_train",
        "test.dataset.names": "lvis_v1_val",
        "evaluator.dataset_name": "lvis_v1_val",
        "evaluator._target_": LVISEvaluator,
    }
    assert not coco


@pytest.mark.parametrize(
    "name",
    ["coco_schedule", "common_schedule", "optim", "train"]
    + [f"data/{name}" for name in ("coco", "coco_detr", "constants", "custom", "lvis_detr")],
)
def test_what_projects_of_the_public_detrex_start_from_is_there(name):
    assert get_config(f"common/{name}.py") is not None
