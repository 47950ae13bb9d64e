"""What is used of detectron2, name by name: both packages that offer its API have these."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("detrex", "tools", "demo", "configs", "benchmarks", "docs", "tests")

# Documented names, where the documentation has them. Before one is added here: does the full
# detectron2 have it, with the arguments and behaviour that are relied on?
NAMES = {
    "detectron2.checkpoint": {"DetectionCheckpointer"},
    "detectron2.checkpoint.c2_model_loading": {
        "align_and_update_state_dicts",
        "convert_c2_detectron_names",
    },
    "detectron2.config": {"LazyCall", "LazyConfig", "instantiate"},
    "detectron2.data": {
        "DatasetCatalog",
        "DatasetFromList",
        "DatasetMapper",
        "MapDataset",
        "MetadataCatalog",
        "build_detection_test_loader",
        "build_detection_train_loader",
        "detection_utils",
        "get_detection_dataset_dicts",
        "transforms",
    },
    "detectron2.data.benchmark": {"DataLoaderBenchmark"},
    "detectron2.data.catalog": {"Metadata"},
    "detectron2.data.datasets": {"load_coco_json", "load_sem_seg", "register_coco_instances"},
    "detectron2.data.datasets.builtin_meta": {"COCO_CATEGORIES"},
    "detectron2.data.detection_utils": {
        "annotations_to_instances",
        "check_image_size",
        "filter_empty_instances",
        "read_image",
        "transform_instance_annotations",
    },
    "detectron2.data.samplers": {"TrainingSampler"},
    "detectron2.data.transforms": {
        "AugInput",
        "Augmentation",
        "AugmentationList",
        "CropTransform",
        "FixedSizeCrop",
        "HFlipTransform",
        "NoOpTransform",
        "RandomCrop",
        "RandomCrop_CategoryAreaConstraint",
        "RandomFlip",
        "ResizeScale",
        "ResizeShortestEdge",
        "Transform",
        "TransformList",
    },
    "detectron2.engine": {
        "HookBase",
        "SimpleTrainer",
        "TrainerBase",
        "create_ddp_model",
        "default_argument_parser",
        "default_setup",
        "default_writers",
        "hooks",
        "launch",
    },
    "detectron2.engine.hooks": {
        "BestCheckpointer",
        "EvalHook",
        "IterationTimer",
        "LRScheduler",
        "PeriodicCheckpointer",
        "PeriodicWriter",
    },
    "detectron2.evaluation": {
        "COCOEvaluator",
        "COCOPanopticEvaluator",
        "LVISEvaluator",
        "SemSegEvaluator",
        "inference_on_dataset",
        "print_csv_format",
    },
    "detectron2.layers": {
        "CNNBlockBase",
        "Conv2d",
        "FrozenBatchNorm2d",
        "ShapeSpec",
        "get_norm",
    },
    "detectron2.modeling": {"Backbone", "detector_postprocess"},
    "detectron2.modeling.backbone": {
        "LastLevelMaxPool",
        "SimpleFeaturePyramid",
        "get_vit_lr_decay_rate",
    },
    "detectron2.modeling.backbone.resnet": {"BasicBlock", "BasicStem", "BottleneckBlock", "ResNet"},
    "detectron2.projects.point_rend": {"ColorAugSSDTransform"},
    "detectron2.solver": {"WarmupParamScheduler"},
    "detectron2.solver.build": {"get_default_optimizer_params"},
    "detectron2.structures": {
        "BitMasks",
        "BoxMode",
        "Boxes",
        "ImageList",
        "Instances",
        "PolygonMasks",
        "pairwise_iou",
    },
    "detectron2.utils": {"comm"},
    "detectron2.utils.analysis": {"parameter_count_table"},
    "detectron2.utils.collect_env": {"collect_env_info"},
    "detectron2.utils.comm": {
        "all_gather",
        "create_local_process_group",
        "get_local_rank",
        "get_rank",
        "get_world_size",
        "is_main_process",
        "shared_random_seed",
        "synchronize",
    },
    "detectron2.utils.events": {"EventStorage", "EventWriter", "get_event_storage"},
    "detectron2.utils.file_io": {"PathManager"},
    "detectron2.utils.logger": {"create_small_table", "setup_logger"},
    "detectron2.utils.registry": {"locate"},
    "detectron2.utils.video_visualizer": {"VideoVisualizer"},
    "detectron2.utils.visualizer": {"ColorMode", "VisImage", "Visualizer"},
}

# Names with an underscore that a subclass of SimpleTrainer lives on, as the public detrex does.
FOR_SUBCLASSES = {"_data_loader_iter", "_write_metrics"}


@cache
def trees() -> dict[str, ast.Module]:
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


def used(tree: ast.Module) -> set[str]:
    """Dotted names of detectron2 that a file imports, and of what it uses of imported modules."""
    found, alias = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "detectron2":
            for name in node.names:
                found.add(f"{node.module}.{name.name}")
                alias[name.asname or name.name] = f"{node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "detectron2":
                    alias[name.asname or "detectron2"] = name.name if name.asname else "detectron2"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in alias:
                found.add(f"{alias[first]}.{rest}")
    return found


def is_listed(name: str) -> bool:
    """Also attributes of listed objects, which have no underscore in front."""
    parts = name.split(".")
    if any(part.startswith("_") and not part.endswith("__") for part in parts):
        return False
    is_module = name in NAMES or any(module.startswith(f"{name}.") for module in NAMES)
    prefixes = {".".join(parts[:i]): parts[i] for i in range(1, len(parts))}
    below = {module: then for module, then in prefixes.items() if module in NAMES}
    nearest = max(below, key=len, default="")
    return is_module or (nearest != "" and below[nearest] in NAMES[nearest])


def test_the_reader_sees_what_is_used():
    """Guards the test below against passing because nothing is found."""
    found = used(trees()["detrex/data/detr_dataset_mapper.py"])
    assert "detectron2.structures.BoxMode.convert" in found
    assert "detectron2.data.transforms.AugInput" in found
    assert "detectron2.layers.Conv2d" in used(trees()["detrex/modeling/backbone/folding.py"])
    for name in ("detectron2.config.lazy", "detectron2.utils.comm._x", "detectron2.layers.cat"):
        assert not is_listed(name)


def test_only_listed_names_are_used():
    wrong = {
        (file, name)
        for file, tree in trees().items()
        for name in used(tree)
        if not is_listed(name) and name != "detectron2.__file__"
    }
    assert not wrong, "not a documented name of detectron2, or not in NAMES"


@pytest.mark.parametrize("module", NAMES)
def test_the_installed_detectron2_has_them(module):
    missing = {n for n in NAMES[module] if not hasattr(importlib.import_module(module), n)}
    assert not missing


@pytest.mark.parametrize(
    "file", ["engine/trainer", "engine/hooks", "engine/loaders", "engine/ema", "utils/events"]
)
def test_subclasses_use_nothing_private_of_their_bases(file):
    tree = trees()[f"detrex/{file}.py"]
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
            (own if isinstance(node.ctx, ast.Store) else read).add(node.attr)
    private = {name for name in read - own if name.startswith("_") and not name.endswith("__")}
    assert private <= FOR_SUBCLASSES
