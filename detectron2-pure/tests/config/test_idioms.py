"""How public configs and scripts use the config objects."""

import copy

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, OmegaConf
from torch import nn


class Head(nn.Module):
    def __init__(self, width, shapes=None, names=()):
        super().__init__()
        self.layer = nn.Linear(width, 1)
        self.shapes, self.names = shapes, names


def make_model():
    return L(Head)(width="${.in_width}", in_width=3, shapes={"p3": ShapeSpec(channels=4)})


def test_removing_and_updating_entries():
    model = make_model()
    [model.pop(k) for k in ("in_width",)]
    model.width = 5
    del model.shapes
    model.update(_target_=nn.Linear, in_features="${.width}", out_features=2)
    model.pop("width")
    model.in_features = 5
    assert instantiate(model).weight.shape == (2, 5)
    model["bias"] = False
    assert instantiate(model).bias is None


def test_callee_gets_config_containers():
    model = L(Head)(width=1, shapes={"p3": ShapeSpec(channels=4)}, names=["a", "b"])
    made = instantiate(model)
    assert made.shapes["p3"].channels == 4
    assert [name for name in made.names] == ["a", "b"]
    assert list(made.shapes.keys()) == ["p3"]


def test_live_objects_in_lists():
    dataloader = OmegaConf.create()
    dataloader.train = L(dict)(mapper=L(dict)(augmentations=[L(nn.ReLU)(inplace=True)]))
    module = nn.Linear(1, 1)
    dataloader.train.mapper.augmentations.insert(1, L(nn.Sequential)())
    dataloader.train.mapper.augmentations.append(module)
    made = instantiate(dataloader.train.mapper.augmentations)
    assert [type(m) for m in made] == [nn.ReLU, nn.Sequential, nn.Linear]
    assert made[2] is module


def test_plain_dictionaries_with_targets():
    cfg = L(dict)(augmentations=[])
    cfg.augmentations = [{"_target_": "torch.nn.Dropout", "p": 0.25}]
    assert instantiate(cfg)["augmentations"][0].p == 0.25


def test_evaluator_follows_the_dataset_name():
    dataloader = model_zoo.get_config("common/data/coco.py").dataloader
    for names in ("x", ["x"]):
        dataloader.test.dataset.names = names
        assert dataloader.evaluator.dataset_name == names


def test_optimizer_with_a_live_model():
    optimizer = model_zoo.get_config("common/optim.py").AdamW
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimizer.params.model = model
    optimizer.params.lr_factor_func = lambda name: 0.1 if "0." in name else 1
    optimizer.lr = 0.5
    made = instantiate(optimizer)
    assert isinstance(made, torch.optim.AdamW)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert rates[id(model[0].weight)] == pytest.approx(0.05)
    assert rates[id(model[1].weight)] == pytest.approx(0.5)


def test_deepcopy_keeps_interpolations():
    cfg = DictConfig({"a": L(dict)(x="${..n}"), "n": 1}, flags={"allow_objects": True})
    twin = copy.deepcopy(cfg)
    twin.n = 2
    assert (cfg.a.x, twin.a.x) == (1, 2)


def test_output_dir_from_file_name(tmp_path):
    path = tmp_path / "my_config.py"
    path.write_text(
        "import os, time\n"
        "from detectron2 import model_zoo\n"
        "train = model_zoo.get_config('common/train.py').train\n"
        "train.output_dir = 'output/' + os.path.basename(__file__[:-3])\n"
        "train.started = time.strftime('%Y')\n"
    )
    assert LazyConfig.load(str(path)).train.output_dir == "output/my_config"
