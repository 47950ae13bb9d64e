"""Who may import whom, read from the sources without running them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part of detrex may import of the others. The engine runs a training from end to end, so
# it reads data, weights and configs and draws pictures; which model it trains is none of its
# business.
MAY_IMPORT = {
    "utils": set(),
    "optim": set(),
    "layers": {"utils"},
    "modeling": {"utils", "layers"},
    "export": {"utils", "layers", "modeling"},
    "visualize": {"utils", "layers", "modeling"},
    "data": {"utils"},
    "checkpoint": {"utils"},
    "config": {"utils"},
    "quickstart": set(),
    "engine": {"utils", "data", "checkpoint", "config", "visualize"},
    "benchmark": {"utils", "config", "engine"},
    "collect_env": {"layers"},
    "_C": {"layers"},
}

# Inside modeling: each file may import those of the rows above its own.
MODELING_ROWS = [
    {"predictions", "levels", "checks", "initialization", "ema"},
    {"memory", "targets", "shared", "heads"},
    {"pairs", "queries", "encoder", "predictor"},
    {"losses"},
    {"matcher", "query_pos", "query_groups"},
    {"criterion", "decoder", "postprocess"},
    {"transformer", "backbone", "neck"},
    {"detr", "inference"},
    {"variants"},
]

# Where modeling touches detectron2; all else of it, and all layers, need torch alone.
DETECTRON2_EDGE = {"backbone", "neck", "detr", "targets", "postprocess", "ema"}

# Names and protocols of the public detrex, for code that was written for it. Nothing but package
# ``__init__``s, which export them, and they themselves import these.
UPSTREAM_EDGE = {
    "detrex._C",
    "detrex.checkpoint.c2_model_loading",
    "detrex.checkpoint.detection_checkpoint",
    "detrex.config.config",
    "detrex.data.dataset_mappers",
    "detrex.data.datasets",
    "detrex.data.transforms",
    "detrex.layers.dcn_v3",
    "detrex.layers.denoising",
    "detrex.layers.layer_norm",
    "detrex.layers.shape_spec",
    "detrex.modeling.backbone.convnext",
    "detrex.modeling.backbone.eva",
    "detrex.modeling.backbone.eva_02",
    "detrex.modeling.backbone.eva_02_utils",
    "detrex.modeling.backbone.focalnet",
    "detrex.modeling.backbone.internimage",
    "detrex.modeling.backbone.internimage_blocks",
    "detrex.modeling.backbone.plain_vit",
    "detrex.modeling.backbone.stages",
    "detrex.modeling.backbone.torchvision_resnet",
    "detrex.modeling.backbone.utils",
    "detrex.modeling.criterion.base_criterion",
    "detrex.modeling.criterion.criterion",
    "detrex.modeling.criterion.indices",
    "detrex.modeling.ema",
    "detrex.modeling.losses.cross_entropy_loss",
    "detrex.modeling.losses.dice_loss",
    "detrex.modeling.losses.focal_loss",
    "detrex.modeling.losses.giou_loss",
    "detrex.modeling.losses.smooth_l1_loss",
    "detrex.modeling.losses.utils",
    "detrex.modeling.matcher.match_cost",
    "detrex.modeling.matcher.modified_matcher",
    "detrex.utils.dist",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(p): p for p in sorted((ROOT / "detrex").rglob("*.py"))}


@cache
def imports(name: str) -> frozenset[str]:
    """Dotted names of all that a module imports, wherever in its text; relative ones resolved."""
    path = modules()[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            inner = {f"{source}.{alias.name}" for alias in node.names}
            submodules = inner & modules().keys()
            found |= submodules or {source}
    return frozenset(found)


def own_imports(name: str, prefix: str) -> set[str]:
    """First names below ``prefix`` that a module imports, apart from its own."""
    depth = prefix.count(".") + 1
    below = {i.split(".")[depth] for i in imports(name) if i.startswith(f"{prefix}.")}
    return below - {name.split(".")[depth]}


def parts(prefix: str) -> list[str]:
    return [name for name in modules() if name.startswith(f"{prefix}.")]


def test_the_parser_sees_imports():
    """Guards the tests below against passing because nothing is found."""
    assert "layers" in own_imports("detrex.modeling.matcher.costs", "detrex")
    assert "predictions" in own_imports("detrex.modeling.matcher.costs", "detrex.modeling")
    assert "detrex.layers.attention" in imports("detrex.layers")  # relative
    assert any(i.startswith("detectron2") for i in imports("detrex.modeling.detr"))


@pytest.mark.parametrize("name", parts("detrex"))
def test_parts_import_only_what_lies_below(name):
    part = name.split(".")[1]
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what detrex.{part} may import"
    wrong = own_imports(name, "detrex") - MAY_IMPORT[part]
    assert not wrong, f"{name} imports detrex.{sorted(wrong)}"


def test_the_package_itself_imports_none_of_its_parts():
    assert not {i for i in imports("detrex") if i.startswith("detrex")}


@pytest.mark.parametrize("name", parts("detrex.modeling"))
def test_modeling_imports_downwards(name):
    part = name.split(".")[2]
    rows = [i for i, row in enumerate(MODELING_ROWS) if part in row]
    assert rows, f"say in MODELING_ROWS where detrex.modeling.{part} belongs"
    below = set().union(*MODELING_ROWS[: rows[0]])
    wrong = own_imports(name, "detrex.modeling") - below
    assert not wrong, f"{name} imports detrex.modeling.{sorted(wrong)}"


def core() -> list[str]:
    modeling = [n for n in parts("detrex.modeling") if n.split(".")[2] not in DETECTRON2_EDGE]
    layers = [n for n in parts("detrex.layers") if n != "detrex.layers.shape_spec"]
    return ["detrex.layers", *layers, *modeling]


@pytest.mark.parametrize("name", core())
def test_the_core_needs_torch_alone(name):
    wrong = {i for i in imports(name) if i.split(".")[0] in {"detectron2", "fvcore", "iopath"}}
    assert not wrong, f"{name} imports {sorted(wrong)}"


def in_the_edge(name: str) -> bool:
    return any(name == edge or name.startswith(f"{edge}.") for edge in UPSTREAM_EDGE)


@cache
def names_of_the_edge() -> frozenset[str]:
    """Dotted names of what package ``__init__``s export of the edge."""
    found = set()
    for name, path in modules().items():
        if path.name != "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.ImportFrom) and in_the_edge(node.module or ""):
                found |= {f"{name}.{alias.asname or alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def imported_names(name: str) -> frozenset[str]:
    """Dotted names of what a module imports, to the last part."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def test_edge_modules_exist():
    assert modules().keys() >= UPSTREAM_EDGE
    assert "detrex.modeling.criterion.SetCriterion" in names_of_the_edge()


@pytest.mark.parametrize("name", [n for n in parts("detrex") if not in_the_edge(n)])
def test_nothing_builds_on_the_upstream_edge(name):
    if modules()[name].name == "__init__.py":
        return
    wrong = {i for i in imported_names(name) if in_the_edge(i) or i in names_of_the_edge()}
    wrong |= {i for i in imports(name) if in_the_edge(i)}
    assert not wrong, f"{name} imports {sorted(wrong)}, which are for code of the public detrex"


def test_every_folder_is_a_package():
    """Otherwise it would be missing from the wheel."""
    folders = {path.parent for path in modules().values()}
    assert not [str(f) for f in sorted(folders) if not (f / "__init__.py").exists()]
