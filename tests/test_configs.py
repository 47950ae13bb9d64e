"""What every recipe promises: it loads, and its model builds, trains, and evaluates."""

from __future__ import annotations

import pytest
import torch
import zoo

from detrex.config import get_config


@pytest.mark.parametrize("recipe", zoo.RECIPES)
def test_recipe_is_complete(recipe):
    config = get_config(recipe)
    assert {"model", "dataloader", "optimizer", "lr_multiplier", "train"} <= set(config)
    config.model.num_classes = 7
    assert config.model.criterion.num_classes == 7


@pytest.mark.parametrize("recipe", zoo.MODELS)
def test_trains_and_evaluates(recipe):
    model = zoo.small_model(recipe).train()
    full = zoo.image(64, 96, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2])
    empty = zoo.image(80, 64, [], [], seed=1)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for batch in ([full, empty], [full], [empty]):
        model.zero_grad()
        losses = model(batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        lacking = [n for n, p in trainable.items() if p.grad is None]
        assert lacking == []
        broken = [n for n, p in trainable.items() if not torch.isfinite(p.grad).all()]
        assert broken == []
    model.eval()
    with torch.no_grad():
        for inputs, output in zip([full, empty], model([full, empty]), strict=True):
            found = output["instances"]
            assert found.image_size == (inputs["height"], inputs["width"])
            assert (found.scores.diff() <= 0).all()
            assert ((found.pred_classes >= 0) & (found.pred_classes < 3)).all()
            assert (found.pred_boxes.tensor >= 0).all()


@pytest.mark.parametrize("recipe", zoo.MODELS)
def test_numbers_said_once_reach_every_part(recipe):
    model = zoo.small_model(recipe)
    assert model.num_classes == model.criterion.num_classes == 3
    no_object = model.criterion.class_loss.no_object
    for head in model.transformer.decoder.class_embed:
        assert (head.in_features, head.out_features) == (64, 3 + no_object)
    predictions = model.predict([torch.zeros(3, 64, 64)])
    assert predictions[0].boxes.shape == (1, 12, 4)


@pytest.mark.parametrize(
    "recipe",
    [
        "detr/detr_r50_300ep.py",
        "conditional_detr/conditional_detr_r50_50ep.py",
        "dab_detr/dab_detr_r50_50ep.py",
        "deformable_detr/deformable_detr_r50_50ep.py",
        "dab_deformable_detr/dab_deformable_detr_r50_50ep.py",
    ],
)
def test_mixed_precision(recipe):
    """Losses in bfloat16 autocast stay near; boxes and scores keep single precision."""
    model = zoo.small_model(recipe).train()
    batch = [zoo.image(64, 96, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2])]
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
        found = model.eval()(batch)[0]["instances"]
    for name, value in exact.items():
        torch.testing.assert_close(losses[name].to(value.dtype), value, rtol=0.05, atol=0.02)
    assert found.pred_boxes.tensor.dtype == found.scores.dtype == torch.float32
