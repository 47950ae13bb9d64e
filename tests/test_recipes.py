"""The recipes' hyper-parameters are those of the public detrex (`reference/recipes.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf

from detrex.config import get_config

REFERENCE = json.loads((Path(__file__).parent / "reference" / "recipes.json").read_text())

# Where the reference is mistaken: it starts ResNet-101 from the weights of ResNet-50 or leaves them
# open, and writes two recipes into one folder.
R101 = (
    "detr/detr_r101_300ep",
    "conditional_detr/conditional_detr_r101_50ep",
    "dab_detr/dab_detr_r101_50ep",
    "dino/dino-resnet/dino_r101_4scale_12ep",
)
for _recipe in R101:
    REFERENCE[f"{_recipe}.py"]["train"]["init_checkpoint"] = (
        "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
    )
OWN_FOLDER = (
    "detr/detr_r101_dc5_300ep",
    "dn_detr/dn_detr_r50_dc5_50ep",
    "dino/dino-resnet/dino_r50_4scale_12ep_300dn",
)
for _recipe in OWN_FOLDER:
    REFERENCE[f"{_recipe}.py"]["train"]["output_dir"] = f"./output/{_recipe.rpartition('/')[2]}"
REFERENCE["dino/dino-focal/dino_focal_base_lrf_fl3_4scale_12ep.py"]["train"]["output_dir"] = (
    "./output/dino_focal_base_lrf_fl3_4scale_12ep"
)

# Where it names a file that the user has to find, ours take the same weights from timm.
for _expected in REFERENCE.values():
    if "://" not in _expected["train"]["init_checkpoint"]:
        _expected["train"]["init_checkpoint"] = ""


@pytest.fixture(params=REFERENCE, scope="module")
def pair(request):
    return get_config(request.param), REFERENCE[request.param]


def plain(config: Any) -> Any:
    """A config as plain data, with callables as their names."""
    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config, resolve=True)
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    return getattr(config, "__name__", config)


def last_names(config: Any) -> Any:
    """The same for the reference, where callables are dotted names."""
    if isinstance(config, dict):
        return {
            key: value.rpartition(".")[2] if key == "_target_" else last_names(value)
            for key, value in config.items()
        }
    return [last_names(value) for value in config] if isinstance(config, list) else config


def expected_pixels(backbone: Any) -> dict[str, list[float]]:
    """What images a backbone's weights expect, without building a large network."""
    if "model_name" in backbone:
        known = timm.get_pretrained_cfg(backbone.model_name)
        values = [[round(255 * value, 3) for value in values] for values in (known.mean, known.std)]
    else:
        with torch.device("meta"):
            network = instantiate(backbone)
        values = [list(network.pixel_mean), list(network.pixel_std)]
    return dict(zip(("pixel_mean", "pixel_std"), values, strict=True))


def assert_includes(config: dict, expected: dict) -> None:
    assert {key: config[key] for key in expected} == expected


def test_training(pair):
    config, expected = pair
    assert_includes(plain(config.train), expected["train"])
    multiplier, wanted = plain(config.lr_multiplier), dict(expected["lr_multiplier"])
    assert_includes(multiplier["scheduler"], wanted.pop("scheduler"))
    assert_includes(multiplier, wanted)


def test_optimizer(pair):
    config, expected = pair
    assert_includes(plain(config.optimizer), last_names(expected["optimizer"]))
    assert config.optimizer.params.weight_decay_norm == 0.0
    factor = instantiate(config.optimizer.params.lr_factor_func)
    assert {name: factor(name) for name in expected["lr_factor"]} == expected["lr_factor"]


def test_data(pair):
    config, expected = pair
    train, test = plain(config.dataloader.train), plain(config.dataloader.test)
    assert train["total_batch_size"] == expected["total_batch_size"]
    assert train["dataset"]["names"] == expected["train_names"]
    assert test["dataset"]["names"] == expected["test_names"]
    for key in ("augmentation", "augmentation_with_crop"):
        assert train["mapper"][key] == last_names(expected[key])
    assert test["mapper"]["augmentation"] == last_names(expected["test_augmentation"])


def test_model(pair):
    config, expected = pair
    model = config.model
    values = dict(expected["model"])
    pixels = {name: values.pop(name) for name in ("pixel_mean", "pixel_std")}
    assert_includes(plain(model), values)
    assert (model.pixel_mean, model.pixel_std) == (None, None)  # as the backbone says
    assert expected_pixels(model.backbone) == pixels
    for name in ("encoder", "decoder"):
        part, wanted = plain(model.transformer[name]), dict(expected[name])
        assert part["num_layers"] == wanted.pop("num_layers")
        drops = {wanted.pop("attn_dropout"), wanted.pop("ffn_dropout")}
        assert {part["layer"]["dropout"]} == drops
        assert_includes(part["layer"], wanted)


def test_criterion(pair):
    config, expected = pair
    criterion = plain(config.model.criterion)
    assert_includes(criterion["matcher"], expected["matcher"])
    assert_includes(criterion, expected["criterion"])
    weigh = instantiate(config.model.criterion).weighted
    names = dict.fromkeys(expected["weight_dict"], torch.ones(()))
    assert {name: value.item() for name, value in weigh(names).items()} == expected["weight_dict"]
