"""One module in two places of a model."""

from __future__ import annotations

import pytest
import torch
import zoo
from detectron2.config import LazyCall, instantiate
from toy_models import FAMILIES, tiny

from detrex.config import get_config
from detrex.modeling.shared import Shared


def config(path: str):
    """DINO whose encoder's proposals share the first box head of the decoder."""
    model = tiny(get_config(FAMILIES["dino"]).model)
    model.transformer.queries.bbox_embed = LazyCall(Shared)(path=path)
    return model


def test_it_exists_and_trains_once():
    head = "transformer.decoder.bbox_embed.0"
    model = instantiate(config(head)).train()
    assert model.transformer.queries.bbox_embed is model.get_submodule(head)
    names = [name for name, _ in model.named_parameters() if "bbox_embed" in name]
    assert len(names) == len(list(model.transformer.decoder.bbox_embed.parameters()))
    losses = model([zoo.image(64, 96, [(5, 8, 40, 50)], [0])])
    bias = model.get_submodule(head).layers[-1].bias
    (of_proposals,) = torch.autograd.grad(losses["loss_bbox_enc"], bias, retain_graph=True)
    (of_the_layer,) = torch.autograd.grad(losses["loss_bbox_0"], bias)
    assert of_proposals.abs().sum() > 0 and of_the_layer.abs().sum() > 0


def test_a_part_of_the_predictor_may_be_shared():
    model = tiny(get_config(FAMILIES["dino"]).model)
    model.transformer.decoder.predictor.norm = LazyCall(Shared)(path="transformer.queries.norm")
    model = instantiate(model).eval()
    decoder = model.transformer.decoder
    assert decoder.norm is decoder.predictor.norm is model.transformer.queries.norm
    model([zoo.image(64, 96, [], [])])


def test_a_name_that_is_not_there():
    with pytest.raises(ValueError, match=r"no module of that name\. Near are: .*bbox_embed\.0"):
        instantiate(config("transformer.decoder.bbox_embeds.0"))


def test_it_says_so_where_nobody_connects_it():
    with pytest.raises(RuntimeError, match=r"Shared\('a\.b'\) is not connected"):
        Shared("a.b")(1)
