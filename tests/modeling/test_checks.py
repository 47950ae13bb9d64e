"""What bad input and wrong numbers get: one sentence that names the image or the key."""

from __future__ import annotations

import pytest
import torch
import zoo
from detectron2.config import instantiate

from detrex.config import get_config

RECIPE = "dab_deformable_detr/dab_deformable_detr_r50_50ep.py"


@pytest.fixture(scope="module")
def model():
    return zoo.small_model(RECIPE)


def entry(boxes=((5, 5, 30, 40),), classes=(1,)) -> dict:
    return {**zoo.image(64, 96, list(boxes), list(classes)), "file_name": "a.png"}


@pytest.mark.parametrize("label", [3, -1, 1000])
def test_classes_that_the_model_does_not_have(model, label):
    boxes = [(5, 5, 30, 40), (6, 6, 20, 20)]
    with pytest.raises(ValueError, match=rf"a\.png .* class {label}, .*0 to 2: .*num_classes"):
        model.train()([entry(), entry(boxes, [1, label])])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("training", [True, False])
def test_pixels_that_are_not_finite(model, value, training):
    x = entry()
    x["image"] = x["image"].float()
    x["image"][1, 2, 3] = value
    with pytest.raises(ValueError, match=r"a\.png has pixels that are NaN or infinite"):
        model.train(training)([entry(), x])


def test_boxes_that_are_not_finite(model):
    x = entry()
    x["instances"].gt_boxes.tensor[0, 2] = float("nan")
    with pytest.raises(ValueError, match=r"a\.png has a box that is NaN or infinite"):
        model.train()([x])


def test_more_objects_than_queries_and_boxes_without_size_can_be_trained_on(model):
    many = [(i, i, i + 20, i + 20) for i in range(model.num_queries + 3)]
    odd = [(5, 5, 5, 9), (90, 60, 120, 80), (200, 200, 300, 300)]
    losses = model.train()([entry(many, [1] * len(many)), entry(odd, [0, 1, 2])])
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("key", ["num_queries", "num_classes"])
@pytest.mark.parametrize("recipe", [RECIPE, "detr/detr_r50_300ep.py"])
def test_none_of_what_a_model_needs(key, recipe):
    cfg = zoo.shrink(get_config(recipe).model)
    cfg[key] = 0
    with pytest.raises(ValueError, match=rf"model\.{key} is 0, but must be at least 1"):
        instantiate(cfg)


def test_numbers_of_classes_that_contradict_each_other():
    cfg = zoo.shrink(get_config(RECIPE).model)
    cfg.criterion.num_classes = 7
    with pytest.raises(ValueError, match=r"model\.num_classes is 3, but model\.criterion.* 7"):
        instantiate(cfg)
    cfg = zoo.shrink(get_config("detr/detr_r50_300ep.py").model)
    cfg.transformer.decoder.predictor.class_embed.num_classes = 7
    model = instantiate(cfg).train()
    with pytest.raises(ValueError, match=r"8 logits, .* expects 3 and one for no object"):
        model([entry()])


def test_images_without_objects_pass(model):
    losses = model.train()([entry((), ())])
    assert all(torch.isfinite(loss) for loss in losses.values())
