"""Numbers that aren't finite are traced to the module and the images that they come from."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import zoo
from tiny_detector import TinyDetector

from detrex.engine import Trainer
from detrex.engine.divergence import first_nonfinite_module, origin

NAN = float("nan")
RECIPE = "dab_deformable_detr/dab_deformable_detr_r50_50ep.py"


@pytest.fixture
def detector():
    return zoo.small_model(RECIPE).train()


def batch(*names: str) -> list[dict]:
    images = [zoo.image(64, 96, [(10, 10, 60, 50)], [1], seed=i) for i in range(len(names))]
    return [{**image, "file_name": name} for image, name in zip(images, names, strict=True)]


def test_the_first_module_and_its_weights_are_named(detector):
    model, records = detector, batch("a.png", "b.png")
    assert "finite numbers only" in origin(model, records)
    layer = model.transformer.encoder.layers[1].ffns[0]
    name = next(n for n, m in model.named_modules() if m is layer)
    next(layer.parameters()).data[0] = NAN
    text = origin(model, records)
    assert f"not finite is of {name}" in text and "weight" in text


def test_an_image_that_is_not_finite_is_named(detector):
    records = batch("a.png", "b.png")
    records[1]["image"] = records[1]["image"].float()
    records[1]["image"][0, 5, 5] = NAN
    assert origin(detector, records) == "The pixels of b.png are not finite themselves."


@pytest.mark.parametrize("broken", [False, True])
def test_looking_leaves_everything_as_it_was(broken):
    model, records = TinyDetector(), batch("a.png")
    if broken:
        model.box.weight.data[0] = NAN
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = first_nonfinite_module(model, lambda: model(records))
    assert found == ("box" if broken else None)
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_loss_that_is_not_finite_is_traced():
    model = TinyDetector()
    model.label.weight.data[0] = NAN
    trainer = Trainer(model, [batch("a.png")], torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(FloatingPointError, match=r"is of label, whose weight is not finite"):
        trainer.train(0, 1)


def test_broken_predictions_are_reported_with_step_layer_module_and_images(detector, caplog):
    model = detector
    model.transformer.queries.anchors.weight.data[3] = NAN
    records = batch("a.png", "b.png")
    trainer = Trainer(model, [records], torch.optim.SGD(model.parameters(), lr=0.0))
    with caplog.at_level(logging.WARNING), pytest.raises(FloatingPointError):
        trainer.train(0, 1)
    text = next(m for m in caplog.messages if m.startswith("Iteration 0: "))
    assert "last layer (a.png, b.png)" in text and "step number 1 with any" in text
    assert "not finite is of transformer.queries" in text
    assert model.criterion.matcher.nonfinite_steps == 1


def test_without_a_trainer_the_matcher_warns_itself(detector, caplog):
    detector.transformer.queries.anchors.weight.data[3] = NAN
    with caplog.at_level(logging.WARNING):
        detector(batch("a.png"))
    assert "Matching met predictions that are NaN" in caplog.text
