from __future__ import annotations

from pathlib import Path

import pytest

from detrex.config import get_config, get_config_file


def test_configs_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert get_config("common/train.py").train.max_iter == 90000
    assert Path(get_config_file("common/data/coco_detr.py")).name == "coco_detr.py"


def test_each_call_gives_a_config_of_its_own():
    get_config("common/train.py").train.max_iter = 1
    assert get_config("common/train.py").train.max_iter == 90000


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("common/trian.py", "common/train.py"),
        ("coco_detr.py", "common/data/coco_detr.py"),
        ("common/coco_schedule", "common/coco_schedule.py"),
    ],
)
def test_an_unknown_config_names_the_nearest(asked, nearest):
    with pytest.raises(FileNotFoundError, match=f"no config '{asked}'; the nearest are {nearest}"):
        get_config(asked)
