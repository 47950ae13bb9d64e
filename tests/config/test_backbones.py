"""The backbones of `common/backbones`: one line puts any of them into a detector."""

from __future__ import annotations

import pytest
import timm
import torch
from detectron2.config import LazyConfig, instantiate
from small_backbones import shrink_timm
from zoo import CONFIGS, shrink

from detrex.config import get_config
from detrex.modeling.backbone.weights import WEIGHT_PACKAGES
from detrex.utils.pretrained import skip_pretrained

FILES = sorted(path.name for path in (CONFIGS / "common" / "backbones").glob("*.py"))
NODES = [
    (file, name)
    for file in FILES
    for name in LazyConfig.load(str(CONFIGS / "common" / "backbones" / file))
]
BY_FILE = dict(reversed(NODES))  # the first of each file, which is its smallest


def node(file: str, name: str):
    return get_config(f"common/backbones/{file}")[name]


@pytest.mark.parametrize(("file", "name"), NODES)
def test_timm_has_its_weights(file, name):
    backbone = node(file, name)
    architecture = backbone.model_name
    if "pretrained" not in backbone:  # its weights come as a checkpoint
        assert timm.is_model(architecture)
    elif backbone.pretrained is True:
        assert architecture in timm.list_pretrained(f"{architecture.split('.')[0]}.*")
    else:
        assert WEIGHT_PACKAGES[backbone.pretrained].model_name == architecture


@pytest.mark.parametrize(("file", "name"), BY_FILE.items())
def test_one_line_changes_the_backbone(file, name):
    """Of real size, on torch's meta device: no weights are fetched and nothing is computed."""
    model = get_config("deformable_detr/models/deformable_detr_r50.py").model
    model.backbone = node(file, name)
    with skip_pretrained(), torch.device("meta"):
        detector = instantiate(model)
    backbone = detector.backbone
    widths = {name: shape.channels for name, shape in backbone.output_shape().items()}
    assert detector.neck.in_channels == widths
    assert detector.neck.num_levels == model.transformer.num_levels
    assert detector.pixel_mean.shape == detector.pixel_std.shape == (3, 1, 1)


def test_a_detector_normalizes_images_as_the_new_backbone_expects():
    model = shrink(get_config("deformable_detr/models/deformable_detr_r50.py").model)
    model.backbone = node("vit.py", "eva02_small")
    shrink_timm(model.backbone)
    # CLIP's values, which EVA-02 was trained with
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    detector = instantiate(model)
    torch.testing.assert_close(detector.pixel_mean.flatten(), 255 * torch.tensor(mean))
    torch.testing.assert_close(detector.pixel_std.flatten(), 255 * torch.tensor(std))
    model.pixel_mean = [1.0, 2.0, 3.0]
    assert instantiate(model).pixel_mean.flatten().tolist() == [1.0, 2.0, 3.0]


def test_inputs_of_the_neck_that_are_left_over_are_named():
    model = get_config("detr/models/detr_r50.py").model
    model.backbone = node("resnet_d.py", "resnet50d")
    with (
        skip_pretrained(),
        torch.device("meta"),
        pytest.raises(
            ValueError, match=r"in_features name 'res5', but the backbone has \['p2', 'p3"
        ),
    ):
        instantiate(model)
    model.neck.in_features = ["p4"]
    model.backbone.out_strides = [32]
    with skip_pretrained(), torch.device("meta"):
        assert instantiate(model).neck.in_channels == {"p4": 2048}


def test_a_recipe_can_be_written_and_read(tmp_path):
    recipe = get_config("dab_deformable_detr/dab_deformable_detr_swin_tiny_50ep.py")
    LazyConfig.save(recipe, str(tmp_path / "config.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]  # and no pickle beside it
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert again.model.backbone.out_strides == [8, 16, 32]
    assert instantiate(again.optimizer.params.lr_factor_func)("backbone.norms.p1.weight") == 1.0
