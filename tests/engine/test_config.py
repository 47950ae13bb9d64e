"""What a config leaves to the user is asked for by name."""

from __future__ import annotations

import pytest

from detrex.engine.config import load_config

PATHS = [
    f"dataloader.{split}.dataset.{key}=x"
    for split in ("train", "test")
    for key in ("json_file", "image_root")
]


def test_values_that_are_not_given():
    with pytest.raises(ValueError, match=r"model\.num_classes=\.\.\.$"):
        load_config("quickstart/own_data.py", PATHS)
    with pytest.raises(ValueError) as e:
        load_config("quickstart/own_data.py", ["model.num_classes=3", *PATHS[1:]])
    assert str(e.value).endswith("key=value: dataloader.train.dataset.json_file=...")
    config = load_config("quickstart/own_data.py", ["model.num_classes=3", *PATHS])
    assert config.model.transformer.decoder.class_embed.num_classes == 3


def test_evaluation_needs_no_training_data():
    overrides = ["model.num_classes=3", *PATHS[2:]]
    assert load_config("quickstart/own_data.py", overrides, eval_only=True).model.num_classes == 3
