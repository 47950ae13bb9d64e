"""Tensors in, tensors out: the same as with dictionaries, and exported for images of any size."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor, nn
from torch.export import Dim
from torch.testing import assert_close
from toy_models import FAMILIES, tiny

from detrex.config import get_config
from detrex.modeling.inference import TensorDetector


def model(family: str) -> nn.Module:
    torch.manual_seed(0)
    return instantiate(tiny(get_config(FAMILIES[family]).model)).eval()


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.manual_seed(sum(shape))).float()


@pytest.mark.parametrize("family", ["detr", "dab_detr", "deformable_detr", "dino"])
@pytest.mark.parametrize("size", [(96, 128), (90, 75)])
def test_the_same_as_with_dictionaries(family, size):
    made = model(family)
    images = pixels(2, 3, *size)
    with torch.no_grad():
        boxes, scores, labels = made.detect(images)
        results = made([{"image": image} for image in images])
    for i, result in enumerate(results):
        found = result["instances"]
        # detectron2 clips boxes to the image, and drops those without any area
        inside = boxes[i].clone()
        inside[:, 0::2].clamp_(0, size[1])
        inside[:, 1::2].clamp_(0, size[0])
        kept = (inside[:, 2:] > inside[:, :2]).all(-1)
        assert_close(found.pred_boxes.tensor, inside[kept], rtol=0, atol=1e-3)
        assert_close(found.scores, scores[i][kept], rtol=0, atol=1e-5)
        assert torch.equal(found.pred_classes, labels[i][kept])


def test_sizes_tell_padding_from_image():
    made = model("dino").double()
    images, sizes = pixels(2, 3, 128, 160).double(), torch.tensor([[128, 160], [64, 96]])
    with torch.no_grad():
        found = made.detect(images, sizes)
        changed = images.clone()
        changed[1, :, 64:] = changed[1, :, :, 96:] = 7.0  # what lies beyond doesn't matter
        for one, other in zip(found, made.detect(changed, sizes), strict=True):
            assert torch.equal(one, other)
        for one, other in zip(found, made.detect(images[:1]), strict=True):
            assert_close(one[:1], other, rtol=0, atol=1e-6)
    assert found[0][1, :, 2].max() < 2 * 96  # in pixels of its own size


@pytest.mark.parametrize("family", ["detr", "dab_detr", "dino"])
def test_export_for_any_size_and_batch(family):
    made = model(family)
    dims = {0: Dim("batch", min=1, max=64), 2: Dim.AUTO, 3: Dim.AUTO}
    with torch.no_grad():
        program = torch.export.export(
            TensorDetector(made), (pixels(2, 3, 160, 192),), dynamic_shapes=(dims,)
        ).module()
        for shape in [(2, 3, 160, 192), (1, 3, 128, 330), (3, 3, 225, 131)]:
            found, expected = program(pixels(*shape)), made.detect(pixels(*shape))
            for one, other in zip(found, expected, strict=True):
                assert_close(one, other, rtol=0, atol=1e-4)


def test_export_with_sizes():
    made = model("deformable_detr_two_stage")
    batch = Dim("batch", min=1, max=64)
    dims = ({0: batch, 2: Dim.AUTO, 3: Dim.AUTO}, {0: batch})
    sizes = torch.tensor([[160, 192], [100, 180]])
    with torch.no_grad():
        program = torch.export.export(
            TensorDetector(made), (pixels(2, 3, 160, 192), sizes), dynamic_shapes=dims
        ).module()
        images, sizes = pixels(1, 3, 128, 224), torch.tensor([[90, 224]])
        for one, other in zip(program(images, sizes), made.detect(images, sizes), strict=True):
            assert_close(one, other, rtol=0, atol=1e-4)
