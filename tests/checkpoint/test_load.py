"""Weights find their place whatever they are called, and every name is accounted for."""

from __future__ import annotations

import copy
import pickle
from argparse import Namespace

import numpy as np
import pytest
import timm
import torch
import torchvision
import zoo
from torch import nn

from detrex.checkpoint import CheckpointError, LoadReport, load_weights, read_state_dict
from detrex.checkpoint.rules import model_names
from detrex.modeling.heads import ClassHead
from detrex.modeling.query_groups import ContrastiveDenoising, Denoising

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
    assert model_names("query_embedding.weight", known) == known
    model = zoo.small_model("deformable_detr/deformable_detr_r50_50ep.py")
    both = torch.randn(12, 128)
    load_weights(model, {"query_embedding.weight": both})
    assert torch.equal(model.transformer.queries.pos.weight, both[:, :64])
    assert torch.equal(model.transformer.queries.content.weight, both[:, 64:])


def test_heads_go_to_the_layer_or_to_the_proposals():
    two_stage = zoo.small_model("deformable_detr/deformable_detr_r50_two_stage_50ep.py")
    names = two_stage.state_dict()
    assert model_names("class_embed.1.bias", names) == ("transformer.decoder.class_embed.1.bias",)
    assert model_names("class_embed.6.bias", names) == ("transformer.queries.class_embed.bias",)
    shared = zoo.small_model("deformable_detr/deformable_detr_r50_50ep.py").state_dict()
    assert model_names("class_embed.5.bias", shared) == ("transformer.decoder.class_embed.0.bias",)


class Heads(nn.Module):
    """Weights with a row per class, under the names that models give them."""

    def __init__(self, num_classes: int, no_object: bool, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.num_classes = num_classes
        self.backbone = nn.Linear(2, 2)
        self.transformer = nn.Module()
        self.transformer.decoder = nn.Module()
        head = ClassHead(4, num_classes, no_object=no_object)
        self.transformer.decoder.class_embed = nn.ModuleList([head, copy.deepcopy(head)])
        denoising = Denoising(num_classes, 4)
        self.transformer.groups = nn.ModuleDict({"denoising": denoising})

    def rows(self) -> dict[str, torch.Tensor]:
        return {n: v for n, v in self.state_dict().items() if "backbone" not in n}


HEADS = "transformer.decoder.class_embed.1.weight"
TABLE = "transformer.groups.denoising.labels.weight"


def loaded(there: Heads, here: Heads, *names) -> tuple[dict, dict, dict, LoadReport]:
    """Rows there, rows here before and after, and the report."""
    before = copy.deepcopy(here.rows())
    report = load_weights(here, there.state_dict(), *names)
    assert torch.equal(here.backbone.weight, there.backbone.weight)
    return there.rows(), before, here.rows(), report


@pytest.mark.parametrize("no_object", [False, True])
def test_rows_of_classes_with_equal_names_are_copied(no_object):
    there, here = Heads(4, no_object, 0), Heads(3, no_object, 1)
    names = ["dog", "bird", "Cat "], ["cat", "dog", "cow", "pig"]
    old, before, after, report = loaded(there, here, *names)
    for name in after:
        assert torch.equal(after[name][0], old[name][1])
        assert torch.equal(after[name][1], before[name][1])
        assert torch.equal(after[name][2], old[name][0])
        if no_object or "labels" in name:  # what stands for no class is last on both sides
            assert torch.equal(after[name][3], old[name][4])
        assert report.class_rows[name].copied == len(after[name]) - 1
    assert report.kept_classes == ["dog", "Cat "]
    assert report.coverage()["transformer"] == (0, 5)
    assert report.coverage()["backbone"] == (2, 2)
    assert f"{HEADS}: {tuple(old[HEADS].shape)} -> {tuple(after[HEADS].shape)}" in str(report)
    assert "those of dog, Cat  are kept" in str(report)


@pytest.mark.parametrize("no_object", [False, True])
def test_without_names_only_what_stands_for_no_class_is_kept(no_object):
    old, before, after, report = loaded(Heads(4, no_object, 0), Heads(3, no_object, 1))
    for name in after:
        assert torch.equal(after[name][:3], before[name][:3])
        if no_object or "labels" in name:
            assert torch.equal(after[name][3], old[name][4])
    assert report.class_rows.keys() == after.keys() == report.mismatched.keys()


def test_classes_in_another_order_are_told_apart_by_their_names():
    old, before, after, report = loaded(
        Heads(3, True, 0), Heads(3, True, 1), ["c", "a", "b"], ["a", "b", "c"]
    )
    for name in after:
        assert torch.equal(after[name], old[name][[2, 0, 1, 3]])
    assert set(after) < set(report.loaded)
    report.check_complete("x.pth")
    old, before, after, report = loaded(
        Heads(3, True, 0), Heads(3, True, 1), ["a", "z", "b"], ["a", "b", "c"]
    )
    assert torch.equal(after[TABLE][[0, 2, 3]], old[TABLE][[0, 1, 3]])
    assert torch.equal(after[TABLE][1], before[TABLE][1])
    assert not set(after) & set(report.loaded)


def test_equal_classes_are_simply_loaded():
    for names in ((), (["a", "b"],), (None, ["x", "y"]), (["a", "b"], ["a", "b"])):
        old, _, after, report = loaded(Heads(2, True, 0), Heads(2, True, 1), *names)
        assert all(torch.equal(after[name], old[name]) for name in after)
        assert not report.class_rows and not report.mismatched


@pytest.mark.parametrize("count", [80, 91])
def test_cocos_classes_need_no_names_in_the_file(count):
    """In a row, or by category id with gaps: the person is 0 or 1, the dog 16 or 18."""
    old, _, after, report = loaded(Heads(count, True, 0), Heads(2, True, 1), ["dog", "person"])
    rows = [16, 0, 80] if count == 80 else [18, 1, 91]
    for name in after:
        assert torch.equal(after[name], old[name][rows])
    assert report.kept_classes == ["dog", "person"]
    report.check_complete("coco.pth")


def test_label_tables_without_a_row_for_unknown_classes():
    there, here = Heads(4, False, 0), Heads(3, False, 1)
    for model in (there, here):
        model.transformer.groups["denoising"] = ContrastiveDenoising(model.num_classes, 4)
    old, before, after, _ = loaded(there, here, ["x", "y", "d"], ["a", "b", "c", "d"])
    assert torch.equal(after[TABLE][:2], before[TABLE][:2])
    assert torch.equal(after[TABLE][2], old[TABLE][3])


def test_class_names_of_a_file_are_read(tmp_path):
    there, here = Heads(2, True, 0), Heads(1, True, 1)
    content = {"model": there.state_dict(), "classes": {"names": ["cat", "dog"]}}
    torch.save(content, tmp_path / "x.pth")
    report = load_weights(here, tmp_path / "x.pth", ["dog"])
    assert report.kept_classes == ["dog"]
    assert torch.equal(here.rows()[HEADS], there.rows()[HEADS][[1, 2]])
    with pytest.raises(ValueError, match=r"2 class_names.*1 classes"):
        load_weights(here, there.state_dict(), ["a", "b"])


def test_for_evaluation_nothing_may_be_left_as_it_was():
    there, here = Heads(4, True, 0), Heads(3, True, 1)
    with pytest.raises(CheckpointError, match=r"x\.pth is for other classes.*\(5, 4\)"):
        load_weights(here, there.state_dict()).check_complete("x.pth")
    state = there.state_dict()
    del state[HEADS]
    with pytest.raises(CheckpointError, match=rf"x\.pth lacks 1 of the model's weights: {HEADS}"):
        load_weights(Heads(4, True, 1), state).check_complete("x.pth")


def test_part_of_a_backbone_is_allowed_on_request(donor):
    half = {n: v for n, v in donor.state_dict().items() if "res4" not in n}
    report = load_weights(zoo.small_model(RECIPE), half)
    with pytest.raises(CheckpointError, match=r"train\.allow_partial_backbone=true"):
        report.check("half.pth")
    report.check("half.pth", allow_partial_backbone=True)


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
