import pytest
import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts, convert_c2_name
from torch import nn


@pytest.mark.parametrize(
    "c2_name, name",
    [
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res_conv1_bn_b", "stem.conv1.norm.bias"),
        ("res2_0_branch1_w", "res2.0.shortcut.weight"),
        ("res2_0_branch1_bn_b", "res2.0.shortcut.norm.bias"),
        ("res2_0_branch2a_w", "res2.0.conv1.weight"),
        ("res3_1_branch2b_bn_s", "res3.1.conv2.norm.weight"),
        ("res4_22_branch2c_bn_rm", "res4.22.conv3.norm.running_mean"),
        ("res4_22_branch2c_bn_riv", "res4.22.conv3.norm.running_var"),
        ("res5_2_branch2c_gn_s", "res5.2.conv3.norm.weight"),
        ("fc1000_b", "fc1000.bias"),
    ],
)
def test_caffe2_names(c2_name, name):
    assert convert_c2_name(c2_name) == name


def nested_model():
    model = nn.Module()
    model.block1 = nn.Module()
    model.block1.layer1 = nn.Linear(2, 3)
    model.layer2 = nn.Linear(3, 2)
    model.res = nn.Module()
    model.res.layer2 = nn.Linear(3, 2)
    return model


def random_state(**shapes):
    return {name.replace("__", "."): torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("c2_conversion", [False, True])
def test_longest_suffix_wins(parallel, c2_conversion):
    model = nested_model()
    wrapped = nn.DataParallel(model) if parallel else model
    checkpoint = random_state(
        layer1__weight=(3, 2),
        layer1__bias=(3,),
        layer2__weight=(2, 3),
        layer2__bias=(2,),
        res__layer2__weight=(2, 3),
        res__layer2__bias=(2,),
    )
    aligned = align_and_update_state_dicts(wrapped.state_dict(), checkpoint, c2_conversion)
    wrapped.load_state_dict(aligned)
    assert torch.equal(model.block1.layer1.weight, checkpoint["layer1.weight"])
    assert torch.equal(model.layer2.bias, checkpoint["layer2.bias"])
    assert torch.equal(model.res.layer2.weight, checkpoint["res.layer2.weight"])


def test_only_whole_name_parts_match():
    model = {"backbone.res2.conv1.weight": torch.zeros(2), "backbone.xres2.bias": torch.zeros(2)}
    checkpoint = {"es2.conv1.weight": torch.ones(2), "res2.bias": torch.ones(2)}
    assert align_and_update_state_dicts(model, checkpoint, False) == checkpoint


def test_leftovers_keep_their_names_and_arguments_stay():
    model = {"backbone.stem.weight": torch.zeros(2)}
    checkpoint = {"stem.weight": torch.ones(2), "fc.weight": torch.ones(3)}
    aligned = align_and_update_state_dicts(model, checkpoint, False)
    assert set(aligned) == {"backbone.stem.weight", "fc.weight"}
    assert set(checkpoint) == {"stem.weight", "fc.weight"}


def test_other_shape_is_skipped_and_named(caplog):
    model = {"a.w": torch.zeros(2, 3)}
    aligned = align_and_update_state_dicts(model, {"w": torch.zeros(3, 2)}, False)
    assert "a.w" not in aligned
    assert (
        "Shape of w in checkpoint is (3, 2), while shape of a.w in model is (2, 3)" in caplog.text
    )


def test_ambiguous_name_is_an_error():
    model = {"student.fc.w": torch.zeros(2), "teacher.fc.w": torch.zeros(2)}
    message = (
        "Cannot match one checkpoint key to multiple keys in the model: "
        r"fc\.w fits both student\.fc\.w and teacher\.fc\.w"
    )
    with pytest.raises(ValueError, match=message):
        align_and_update_state_dicts(model, {"fc.w": torch.ones(2)}, False)


def test_tied_tensors_are_not_ambiguous():
    shared = torch.zeros(2)
    model = {"head.w": shared, "decoder.head.w": shared}
    aligned = align_and_update_state_dicts({f"m.{k}": v for k, v in model.items()}, model, False)
    assert set(aligned) == {"m.head.w", "m.decoder.head.w"}
    only_one = {"w": torch.ones(2)}
    assert set(align_and_update_state_dicts(model, only_one, False)) == set(model)


def test_a_name_of_the_model_stands_for_itself_alone():
    model = {"w": torch.zeros(2), "other.w": torch.zeros(2)}
    assert set(align_and_update_state_dicts(model, {"w": torch.ones(2)}, False)) == {"w"}
