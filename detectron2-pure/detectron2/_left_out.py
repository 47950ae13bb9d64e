"""One-sentence explanations for the parts of detectron2 that this distribution leaves out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

FULL_PACKAGE = "https://github.com/facebookresearch/detectron2"

_RCNN = "the R-CNN family"
_DENSE = "the anchor-based one-stage detectors (RetinaNet, FCOS)"
_PANOPTIC = "panoptic and semantic FPN"
_ROTATED = "rotated boxes"
_YACS = "the yacs configuration tree"
_LVIS = "the table of LVIS; load_lvis_json puts the categories of its file into the metadata"


def _in_timm(network: str, model: str) -> str:
    return (
        f'{network}; use timm.create_model("{model}", features_only=True), or TimmBackbone of '
        "detrex, instead"
    )


_MVIT = _in_timm("MViT", "mvitv2_small")
_REGNET = _in_timm("RegNet", "regnety_040")

# Module (with everything below it) -> what it was.
MODULES = {
    "detectron2._C": "the compiled operators",
    "detectron2.config.compat": _YACS,
    "detectron2.config.defaults": _YACS,
    "detectron2.data.datasets.cityscapes": "the Cityscapes data set",
    "detectron2.data.datasets.cityscapes_panoptic": "the Cityscapes data set",
    "detectron2.data.datasets.lvis_v0_5_categories": _LVIS,
    "detectron2.data.datasets.lvis_v1_categories": _LVIS,
    "detectron2.data.datasets.lvis_v1_category_image_count": _LVIS,
    "detectron2.data.datasets.pascal_voc": "the Pascal VOC data set",
    "detectron2.evaluation.cityscapes_evaluation": "the evaluation of Cityscapes",
    "detectron2.evaluation.pascal_voc_evaluation": "the evaluation of Pascal VOC",
    "detectron2.evaluation.rotated_coco_evaluation": _ROTATED,
    "detectron2.export": "the caffe2 and TorchScript exporters",
    "detectron2.layers.csrc": "the compiled operators",
    "detectron2.layers.roi_align_rotated": _ROTATED,
    "detectron2.layers.rotated_boxes": _ROTATED,
    "detectron2.modeling.anchor_generator": "the anchors of " + _RCNN,
    "detectron2.modeling.backbone.mvit": _MVIT,
    "detectron2.modeling.backbone.regnet": _REGNET,
    "detectron2.modeling.box_regression": "the box coding of " + _RCNN,
    "detectron2.modeling.meta_arch.dense_detector": _DENSE,
    "detectron2.modeling.meta_arch.fcos": _DENSE,
    "detectron2.modeling.meta_arch.panoptic_fpn": _PANOPTIC,
    "detectron2.modeling.meta_arch.rcnn": _RCNN,
    "detectron2.modeling.meta_arch.retinanet": _DENSE,
    "detectron2.modeling.mmdet_wrapper": "the mmdetection wrapper",
    "detectron2.modeling.poolers": "the box pooler of " + _RCNN,
    "detectron2.modeling.proposal_generator": "the region proposals of " + _RCNN,
    "detectron2.modeling.roi_heads": "the heads of " + _RCNN,
    "detectron2.modeling.test_time_augmentation": "test-time augmentation of " + _RCNN,
    "detectron2.projects": "a project beside the points and colors of PointRend",
    "detectron2.structures.rotated_boxes": _ROTATED,
    "detectron2.tracking": "the trackers",
}

# Package -> {name that it exports in the full package: what it was}.
NAMES = {
    "detectron2.config": dict.fromkeys(("set_global_cfg", "global_cfg"), _YACS),
    "detectron2.data.datasets": dict.fromkeys(
        ("load_voc_instances", "register_pascal_voc"), "the Pascal VOC data set"
    ),
    "detectron2.layers": dict.fromkeys(
        (
            "ROIAlignRotated",
            "roi_align_rotated",
            "batched_nms_rotated",
            "nms_rotated",
            "pairwise_iou_rotated",
        ),
        _ROTATED,
    ),
    "detectron2.modeling": dict.fromkeys(
        (
            "GeneralizedRCNN",
            "ProposalNetwork",
            "GeneralizedRCNNWithTTA",
            "DatasetMapperTTA",
            "ROI_HEADS_REGISTRY",
            "ROI_BOX_HEAD_REGISTRY",
            "ROI_MASK_HEAD_REGISTRY",
            "ROI_KEYPOINT_HEAD_REGISTRY",
            "PROPOSAL_GENERATOR_REGISTRY",
            "RPN_HEAD_REGISTRY",
            "ANCHOR_GENERATOR_REGISTRY",
            "ROIHeads",
            "StandardROIHeads",
            "BaseMaskRCNNHead",
            "BaseKeypointRCNNHead",
            "FastRCNNOutputLayers",
            "build_anchor_generator",
            "build_proposal_generator",
            "build_rpn_head",
            "build_roi_heads",
            "build_box_head",
            "build_mask_head",
            "build_keypoint_head",
        ),
        _RCNN,
    )
    | dict.fromkeys(("RetinaNet", "FCOS"), _DENSE)
    | dict.fromkeys(("PanopticFPN", "SemanticSegmentor", "SemSegFPNHead"), _PANOPTIC)
    | {"MViT": _MVIT, "RegNet": _REGNET}
    | dict.fromkeys(
        (
            "build_resnet_backbone",
            "build_resnet_fpn_backbone",
            "build_retinanet_resnet_fpn_backbone",
        ),
        "a backbone of " + _YACS,
    ),
    "detectron2.projects.point_rend": dict.fromkeys(
        (
            "add_pointrend_config",
            "ImplicitPointRendMaskHead",
            "ImplicitPointRendPointHead",
            "PointRendMaskHead",
            "PointRendSemSegHead",
            "StandardPointHead",
            "roi_heads",
        ),
        "the heads of PointRend",
    ),
    "detectron2.solver": dict.fromkeys(
        ("WarmupCosineLR", "WarmupMultiStepLR"),
        "a deprecated schedule; use LRMultiplier with a WarmupParamScheduler instead",
    ),
    "detectron2.structures": {"pairwise_iou_rotated": _ROTATED},
}
for _module in ("backbone", "backbone.fpn", "backbone.resnet", "meta_arch"):
    NAMES[f"detectron2.modeling.{_module}"] = NAMES["detectron2.modeling"]


def _sentence(name: str, what: str) -> str:
    return (
        f"{name} ({what}) is not part of detectron2-pure; "
        f"install the full detectron2 ({FULL_PACKAGE}) to use it."
    )


class _LeftOutFinder(MetaPathFinder):
    """Asked last, for modules nobody else found: explains the ones that were left out."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parts = fullname.split(".")
        for depth in range(len(parts), 1, -1):
            what = MODULES.get(".".join(parts[:depth]))
            if what:
                raise ModuleNotFoundError(_sentence(fullname, what), name=fullname)
        return None


def install() -> None:
    """Let imports of left-out modules say so; harmless when called again."""
    if not any(isinstance(finder, _LeftOutFinder) for finder in sys.meta_path):
        sys.meta_path.append(_LeftOutFinder())


def explain_missing(module: str) -> Callable[[str], Any]:
    """The module-level ``__getattr__`` of a module.

    It raises ``ImportError`` for what the full package alone exports, and ``AttributeError`` for
    what neither has.
    """

    def getattr_of_module(name: str) -> Any:
        what = NAMES.get(module, {}).get(name)
        if what:
            raise ImportError(_sentence(f"{module}.{name}", what), name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattr_of_module
