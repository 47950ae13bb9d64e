"""Weights find their place whatever they are called, and every name is accounted for."""

from __future__ import annotations

import pickle
from argparse import Namespace

import numpy as np
import pytest
import timm
import torch
import torchvision
import zoo

from detrex.checkpoint import CheckpointError, load_weights, read_state_dict
from detrex.checkpoint.rules import targets

RECIPE = "dab_deformable_detr/dab_deformable_detr_r50_50ep.py"


@pytest.fixture(scope="module")
def donor():
    return zoo.small_model(RECIPE, seed=1)


def test_own_names(donor, tmp_path):
    torch.save({"model": donor.state_dict(), "iteration": 7}, tmp_path / "model.pth")
    model = zoo.small_model(RECIPE, seed=2)
    report = load_weights(model, tmp_path / "model.pth")
    assert report.missing == report.unexpected == []
    assert set(report.loaded) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, donor.state_dict()[name])


def test_names_of_torchvision_and_timm():
    """A detector's ResNet computes what the classification network computes."""
    for source in (torchvision.models.resnet18(), timm.create_model("resnet18")):
        for module in source.modules():  # statistics that are not those of a fresh network
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
        source.eval()
        model = zoo.small_model("deformable_detr/deformable_detr_r50_50ep.py").eval()
        report = load_weights(model, source.state_dict())
        loaded, total = report.coverage()["backbone"]
        assert loaded == total > 0
        assert report.unexpected == []
        assert {"fc.weight", "fc.bias"} <= set(report.ignored)
        x = torch.randn(1, 3, 64, 64)
        y = source.maxpool(torch.relu(source.bn1(source.conv1(x))))
        y = source.layer2(source.layer1(y))
        torch.testing.assert_close(model.backbone(x)["res3"], y)


def test_what_does_not_fit_is_reported_and_left_alone(donor):
    model = zoo.small_model(RECIPE, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = dict(donor.state_dict())
    head = "transformer.decoder.class_embed.0.weight"
    state[head] = torch.zeros(5, 64)
    del state["transformer.level_embeds"]
    state["stranger.weight"] = torch.zeros(1)
    report = load_weights(model, state)
    assert report.mismatched == {head: ((5, 64), (3, 64))}
    assert report.missing == ["transformer.level_embeds"]
    assert report.unexpected == ["stranger.weight"]
    for name in (head, "transformer.level_embeds"):
        assert torch.equal(model.state_dict()[name], before[name])
    text = str(report)
    assert "(5, 64) -> (3, 64)" in text and "stranger.weight" in text


def test_another_network_is_refused(donor):
    model = zoo.small_model(RECIPE)
    report = load_weights(model, {"encoder.block.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"strange\.pth doesn't fit.*encoder\.block\.weight"):
        report.check("strange.pth")
    half = {n: v for n, v in donor.state_dict().items() if "res4" not in n}
    with pytest.raises(CheckpointError, match=r"of the backbone's .*backbone\.res4"):
        load_weights(model, half).check("half.pth")
    load_weights(model, donor.state_dict()).check("whole.pth")


def test_columns_are_split_in_halves():
    known = ("transformer.queries.pos.weight", "transformer.queries.content.weight")
    assert targets("query_embedding.weight", known) == known
    model = zoo.small_model("deformable_detr/deformable_detr_r50_50ep.py")
    both = torch.randn(12, 128)
    load_weights(model, {"query_embedding.weight": both})
    assert torch.equal(model.transformer.queries.pos.weight, both[:, :64])
    assert torch.equal(model.transformer.queries.content.weight, both[:, 64:])


def test_heads_go_to_the_layer_or_to_the_proposals():
    two_stage = zoo.small_model("deformable_detr/deformable_detr_r50_two_stage_50ep.py")
    names = two_stage.state_dict()
    assert targets("class_embed.1.bias", names) == ("transformer.decoder.class_embed.1.bias",)
    assert targets("class_embed.6.bias", names) == ("transformer.queries.class_embed.bias",)
    shared = zoo.small_model("deformable_detr/deformable_detr_r50_50ep.py").state_dict()
    assert targets("class_embed.5.bias", shared) == ("transformer.decoder.class_embed.0.bias",)


class Harmful:
    def __reduce__(self):
        return (print, ("code from a weight file ran",))


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_code_in_a_file_never_runs(suffix, tmp_path, capsys):
    path = tmp_path / f"weights{suffix}"
    content = {"model": {"a": torch.zeros(1) if suffix == ".pth" else np.zeros(1)}, "x": Harmful()}
    if suffix == ".pth":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=rf"{path.name}.*asks for .*print"):
        read_state_dict(path)
    assert capsys.readouterr().out == ""


def test_files_of_other_trainers(tmp_path):
    weights = {"module.a": torch.arange(3.0)}
    torch.save(
        {"model": weights, "args": Namespace(lr=1e-4), "best": np.float64(0.5)}, tmp_path / "a.pth"
    )
    assert list(read_state_dict(tmp_path / "a.pth")) == ["a"]
    zoo_file = {"model": {"stem.conv1.weight": np.ones((2, 3), np.float32)}, "__author__": "zoo"}
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(zoo_file))
    assert torch.equal(read_state_dict(tmp_path / "b.pkl")["stem.conv1.weight"], torch.ones(2, 3))


def test_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        read_state_dict(tmp_path / "missing.pth")
    torch.save({"a": torch.randn(100)}, tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    for name, content in (("cut.pth", whole[: len(whole) // 2]), ("text.pth", b"not weights")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_state_dict(tmp_path / name)
    torch.save({"iteration": 5}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="no tensors"):
        read_state_dict(tmp_path / "empty.pth")
