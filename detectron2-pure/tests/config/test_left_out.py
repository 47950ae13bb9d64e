"""What is not included says so, in one sentence."""

import importlib

import detectron2
import pytest


def test_version():
    assert detectron2.__version__.startswith("0.6+pure")


@pytest.mark.parametrize(
    "module",
    [
        "detectron2.modeling.roi_heads",
        "detectron2.modeling.roi_heads.fast_rcnn",
        "detectron2.modeling.meta_arch.rcnn",
        "detectron2.modeling.backbone.mvit",
        "detectron2.structures.rotated_boxes",
        "detectron2.data.datasets.lvis_v1_categories",
        "detectron2.tracking",
        "detectron2._C",
    ],
)
def test_modules(module):
    with pytest.raises(
        ImportError, match=r"detectron2\.[\w.]+ \(.*full detectron2 \(https://\S+\)"
    ):
        importlib.import_module(module)


@pytest.mark.parametrize(
    "statement",
    [
        "from detectron2.config import set_global_cfg",
        "from detectron2.modeling import GeneralizedRCNN",
        "from detectron2.modeling.backbone import MViT",
        "from detectron2.modeling.backbone.resnet import build_resnet_backbone",
        "from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone",
        "from detectron2.structures import pairwise_iou_rotated",
        "from detectron2.layers import batched_nms_rotated",
    ],
)
def test_names(statement):
    with pytest.raises(ImportError, match="full detectron2"):
        exec(statement)


def test_what_to_use_instead():
    with pytest.raises(ImportError, match=r"timm\.create_model\(\"mvitv2_small"):
        exec("from detectron2.modeling import MViT")
    with pytest.raises(ImportError, match="WarmupParamScheduler instead"):
        exec("from detectron2.solver import WarmupCosineLR")


def test_yacs_names_can_be_imported_beside_what_is_there():
    from detectron2.config import downgrade_config, get_cfg, upgrade_config

    for function in (
        get_cfg,
        lambda: downgrade_config({}, to_version=1),
        lambda: upgrade_config({}),
    ):
        with pytest.raises(NotImplementedError, match=r"LazyConfig, or .* full detectron2"):
            function()


def test_rotated_boxes_can_be_imported_beside_what_is_there():
    from detectron2.structures import Boxes, RotatedBoxes

    assert not isinstance(Boxes([[0, 0, 1, 1]]), RotatedBoxes)
    with pytest.raises(NotImplementedError, match=r"Rotated boxes .* full detectron2"):
        RotatedBoxes([[0, 0, 1, 1, 30]])


def test_other_names_fail_as_usual():
    with pytest.raises(ImportError, match="cannot import name"):
        exec("from detectron2.modeling import Nonsense")
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module("detectron2.modeling.nonsense")
