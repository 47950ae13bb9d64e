"""Each code block of the page is a config file beside the DAB-Deformable-DETR recipes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances

from detrex.utils.pretrained import skip_pretrained

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorials" / "using_pretrained_backbones.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def title(block: str) -> str:
    return block.splitlines()[0].lstrip("# ")


@pytest.fixture
def run_block(tmp_path):
    """Load a block as a file of its own in a copy of the configs, without downloads."""
    folder = tmp_path / "configs" / "dab_deformable_detr"

    def run(block: str):
        shutil.copytree(ROOT / "configs", tmp_path / "configs")
        path = folder / "own_config.py"
        path.write_text(block.replace("pretrained=True", "pretrained=False"))
        return LazyConfig.load(str(path))

    return run


@pytest.mark.parametrize("block", BLOCKS, ids=title)
def test_backbone_gives_what_its_neck_or_its_reader_expects(run_block, block):
    config = run_block(block)
    with skip_pretrained():
        backbone = instantiate(config.model.backbone if "model" in config else config.backbone)
    shapes = backbone.eval().output_shape()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    for name, shape in shapes.items():
        assert features[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)
    if "model" in config:
        neck = instantiate(config.model.neck).connect(shapes)
        assert len(neck(features)) == config.model.neck.num_outs


def test_the_ghostnet_detector_trains_a_step(run_block):
    (block,) = [block for block in BLOCKS if title(block).startswith("a user's own file")]
    config = run_block(block)
    config.model.num_queries = 5
    config.model.transformer.encoder.num_layers = 1
    config.model.transformer.decoder.num_layers = 2
    model = instantiate(config.model).train()
    losses = model([{"image": torch.full((3, 64, 96), 127.0), "instances": no_objects()}])
    sum(losses.values()).backward()
    missing = [
        name
        for name, parameter in model.backbone.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert missing == []


def no_objects() -> Instances:
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.zeros(0, 4))
    instances.gt_classes = torch.zeros(0, dtype=torch.long)
    return instances


def test_the_page_has_the_examples_of_the_older_tutorial():
    titles = [title(block) for block in BLOCKS]
    assert titles[0].startswith("config.py: the default ResNet-50")
    assert titles[1] == "ResNet-DC5"
    assert any(t.startswith("a user's own file beside configs/dab_deformable_detr") for t in titles)
