"""Checkpointers and names of Caffe2 as the public detrex has them."""

from __future__ import annotations

import pickle

import pytest
import torch
import torchvision
from reference_recipe import fill_with_recipe
from torch import nn

from detrex.checkpoint import DetectionCheckpointer
from detrex.checkpoint.c2_model_loading import (
    align_and_update_state_dicts,
    convert_basic_c2_names,
    convert_c2_detectron_names,
)
from detrex.checkpoint.detection_checkpoint import (
    get_missing_parameters_message,
    get_unexpected_parameters_message,
)
from detrex.modeling.backbone import BasicStem, ResNet, make_stage


def detector() -> nn.Module:
    stages = make_stage(depth=18, norm="BN", out_channels=64, stride_in_1x1=False)
    return nn.ModuleDict({"backbone": ResNet(BasicStem(norm="BN"), stages, out_features=["res5"])})


def test_names_of_torchvision_find_their_places(tmp_path, caplog):
    network = torchvision.models.resnet18()
    fill_with_recipe(network)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    model = detector()
    with caplog.at_level("INFO"):
        DetectionCheckpointer(model).resume_or_load(str(tmp_path / "resnet18.pth"), resume=True)
    conv = model["backbone"].res3[0].conv2
    assert torch.equal(conv.weight, network.layer2[0].conv2.weight)
    assert torch.equal(conv.norm.running_var, network.layer2[0].bn2.running_var)
    assert any("backbone: 120 of 120 weights" in message for message in caplog.messages)


def test_it_saves_and_resumes(tmp_path):
    model = detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    saved = DetectionCheckpointer(model, str(tmp_path), save_to_disk=True, optimizer=optimizer)
    saved.save("model_0000007", iteration=7)
    other = detector()
    theirs = torch.optim.SGD(other.parameters(), lr=0.1)
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=theirs)
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 7}
    assert theirs.param_groups[0]["lr"] == 0.5
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_files_by_caffe2(tmp_path):
    wanted = detector().state_dict()["backbone.stem.conv1.norm.weight"] + 1
    blobs = {"model": {"res_conv1_bn_s": wanted.numpy()}, "__author__": "Caffe2"}
    blobs["matching_heuristics"] = True
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps(blobs))
    model = detector()
    DetectionCheckpointer(model).load(str(tmp_path / "R-18.pkl"))
    assert torch.equal(model["backbone"].stem.conv1.norm.weight, wanted)


def test_a_file_of_another_model_is_refused(tmp_path):
    torch.save({"model": {"unknown.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth doesn't fit this model"):
        DetectionCheckpointer(detector()).load(str(tmp_path / "other.pth"))
    assert DetectionCheckpointer(detector()).load("") == {}


def test_names_of_caffe2():
    blobs = ["conv1_w", "res_conv1_bn_b", "res4_5_branch2c_w", "res2_0_branch1_bn_s"]
    expected = [
        "stem.conv1.weight",
        "stem.conv1.norm.bias",
        "res4.5.conv3.weight",
        "res2.0.shortcut.norm.weight",
    ]
    assert convert_basic_c2_names(blobs) == expected
    weights, _ = convert_c2_detectron_names({name: torch.zeros(2) for name in blobs})
    assert list(weights) == expected
    model = {"backbone.stem.conv1.weight": torch.ones(2)}
    aligned = align_and_update_state_dicts(model, {"stem.conv1.weight": torch.zeros(2)}, False)
    assert torch.equal(aligned["backbone.stem.conv1.weight"], torch.zeros(2))


def test_messages_name_what_is_left_out():
    assert "norm.{bias, weight}" in get_missing_parameters_message(["norm.weight", "norm.bias"])
    assert "fc.weight" in get_unexpected_parameters_message(["fc.weight"])
