"""Who owns the start of a parameter. (``test_init.py`` checks the published models' starts.)"""

from __future__ import annotations

import torch
from detectron2.config import LazyCall, instantiate
from torch import nn
from toy_models import FAMILIES, tiny

from detrex.config import get_config
from detrex.layers import MLP
from detrex.modeling.heads import ClassHead
from detrex.modeling.initialization import initialize
from detrex.modeling.predictor import BoxPredictor


class ZeroLinear(nn.Linear):
    """Of another library: starts at zero, says so in its constructor alone."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        nn.init.zeros_(self.weight)


class ZeroHead(nn.Module):
    """Of another library: has torch's layers and one of detrex's inside."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(3, embed_dim)
        self.mlp = MLP(embed_dim, embed_dim, num_classes, 2)
        self.known = ClassHead(embed_dim, num_classes)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        return self.mlp(x)


class OwnStart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.inner.weight, 100.0)


class OwnPredictor(BoxPredictor):
    """Built on detrex's: is started as that is, and changes what it owns."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for head in self.class_embed:
            nn.init.constant_(head.weight, 7.0)


def model(**predictor):
    torch.manual_seed(0)
    config = tiny(get_config(FAMILIES["dino"]).model)
    config.transformer.decoder.predictor.update(predictor)
    return instantiate(config)


def test_heads_of_other_libraries_keep_their_start():
    head = LazyCall(ZeroHead)(embed_dim=64, num_classes=3)
    for made in model(class_embed=head).transformer.decoder.class_embed:
        assert all(parameter.eq(0).all() for parameter in made.parameters())
    linear = ZeroLinear(4, 4)
    initialize(nn.Sequential(linear))
    assert linear.weight.eq(0).all()


def test_torchs_layers_and_detrexs_blocks_are_xavier():
    torch.manual_seed(0)
    plain, block, table = nn.Linear(4, 400), MLP(4, 400, 4, 2), nn.Embedding(1000, 4)
    nn.init.zeros_(plain.weight)
    initialize(nn.Sequential(plain, block, table))
    for weight in (plain.weight, block.layers[0].weight):
        bound = (6 / 404) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound
    assert abs(table.weight.std() - 1) < 0.1


def test_copies_that_own_their_start_differ():
    parts = nn.Sequential(OwnStart(), OwnStart())
    initialize(parts)
    one, other = (part.inner.weight for part in parts)
    assert 90 < one.mean() < 110 and not torch.equal(one, other)


def test_a_predictor_may_change_the_start_of_its_heads():
    made = model()
    config = tiny(get_config(FAMILIES["dino"]).model)
    config.transformer.decoder.predictor._target_ = OwnPredictor
    torch.manual_seed(0)
    own = instantiate(config)
    for name, value in own.state_dict().items():
        if "decoder.class_embed" in name and name.endswith("weight"):
            assert value.eq(7.0).all()
        else:
            assert torch.equal(value, made.state_dict()[name]), name
