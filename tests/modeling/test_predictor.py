"""What the decoder asks at the end of each layer, and what a predictor of one's own may do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from detrex.modeling.decoder import Decoder
from detrex.modeling.heads import BoxHead, ClassHead
from detrex.modeling.memory import Memory
from detrex.modeling.predictor import BoxPredictor, LayerOutput, shift
from detrex.modeling.queries import Queries
from detrex.modeling.query_groups import Group
from detrex.modeling.query_pos import FixedPosition
from detrex.modeling.transformer import by_group

LAYERS, WIDTH, CLASSES = 3, 8, 5


class Twice(nn.Module):
    """A decoder layer whose result depends on its parameter and on the anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor, *, reference_points: Tensor | None, **context: object) -> Tensor:
        seen = 0 if reference_points is None else reference_points.sum((-2, -1))[..., None]
        return self.scale * x + seen


def memory() -> Memory:
    return Memory(torch.zeros(2, 6, WIDTH), torch.zeros(2, 6, WIDTH), None, ((2, 3),),
                  torch.ones(2, 1, 2))  # fmt: skip


def queries() -> Queries:
    content = torch.randn(2, 4, WIDTH, generator=torch.manual_seed(0))
    anchors = torch.rand(2, 4, 4, generator=torch.manual_seed(1))
    return Queries(content, anchors, torch.zeros(2, 4, WIDTH))


def predictor(**options) -> BoxPredictor:
    torch.manual_seed(2)
    made = BoxPredictor(
        LAYERS, ClassHead(WIDTH, CLASSES), BoxHead(WIDTH, zero_init=False), **options
    )
    for head in (*made.class_embed, *made.bbox_embed):
        head.reset_parameters()  # copies that differ
    return made


def decoder(own: nn.Module, **options) -> Decoder:
    return Decoder(Twice(), LAYERS, FixedPosition(), own, **options)


def test_boxes_are_relative_to_the_anchors_and_refined_anchors_are_detached():
    own = predictor(refine=True, norm=nn.LayerNorm(WIDTH))
    outputs = decoder(own)(start := queries(), memory())
    x, anchors = start.content, start.anchors
    for i, output in enumerate(outputs):
        x = Twice()(x, reference_points=memory().per_level(anchors))
        assert_close(output.logits, own.class_embed[i](own.norm(x)))
        assert_close(output.boxes, shift(anchors, own.bbox_embed[i](own.norm(x))))
        anchors = shift(anchors, own.bbox_embed[i](x)).detach()
    outputs[1].boxes.sum().backward()
    assert all(p.grad is None for p in own.bbox_embed[0].parameters())
    assert all(p.grad is not None for p in own.bbox_embed[1].parameters())


def test_without_refinement_anchors_stay():
    outputs = decoder(own := predictor(share_heads=True))(start := queries(), memory())
    assert len(own.class_embed) == len(own.bbox_embed) == 1
    x = start.content
    for output in outputs:
        x = Twice()(x, reference_points=memory().per_level(start.anchors))
        assert_close(output.boxes, shift(start.anchors, own.bbox_embed[0](x)))


def test_look_forward_twice_reaches_one_layer_back():
    values = {}
    for twice in (False, True):
        own = predictor(refine=True, look_forward_twice=twice)
        outputs = decoder(own)(queries(), memory())
        values[twice] = torch.stack([output.boxes for output in outputs])
        outputs[2].boxes.sum().backward()
        reached = [head.layers[2].bias.grad is not None for head in own.bbox_embed]
        assert reached == [False, twice, True]
    assert_close(values[False], values[True], rtol=0, atol=0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_early_exit_at_evaluation(layers):
    own = predictor(refine=True)
    full, early = decoder(own), decoder(copy.deepcopy(own), eval_layers=layers)
    expected = full.eval()(queries(), memory())[:layers]
    found = early.eval()(queries(), memory())
    assert len(found) == layers
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.logits, other.logits) and torch.equal(one.boxes, other.boxes)
    assert len(early.train()(queries(), memory())) == LAYERS


@pytest.mark.parametrize("layers", [0, 4])
def test_early_exit_after_layers_that_are_not_there(layers):
    with pytest.raises(ValueError, match=rf"eval_layers is {layers}, .* from 1 to num_layers=3"):
        decoder(predictor(), eval_layers=layers)


class Running(nn.Module):
    """Adds to a distribution from layer to layer, as its state, and says it as an extra."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = nn.Linear(WIDTH, 4 * 3)

    def forward(self, layer, x, anchors, memory, state):
        total = self.bins(x).unflatten(-1, (4, 3)) + (0 if state is None else state)
        output = LayerOutput(x[..., :CLASSES], anchors, {"distributions": total})
        return output, anchors, total


def test_a_predictor_with_state_and_extras():
    outputs = decoder(own := Running())(start := queries(), memory())
    x, total = start.content, 0
    for output in outputs:
        x = Twice()(x, reference_points=memory().per_level(start.anchors))
        total = total + own.bins(x).unflatten(-1, (4, 3))
        assert_close(output.extras["distributions"], total)
    start.groups = [Group(3), Group(1, suffix="_dn{layer}")]
    (last, first, second), (own_last, *_) = by_group(start, outputs)
    assert [p.suffix for p in (last, first, second, own_last)] == ["", "_0", "_1", "_dn"]
    assert [p.auxiliary for p in (last, first, second, own_last)] == [False, True, True, False]
    assert_close(first.extras["distributions"], outputs[0].extras["distributions"][:, :3])
    assert_close(own_last.extras["distributions"], outputs[2].extras["distributions"][:, 3:])
    assert_close(own_last.boxes, outputs[2].boxes[:, 3:])


def test_modules_are_named_as_the_decoders_own():
    own = predictor(norm=nn.LayerNorm(WIDTH))
    made = decoder(own)
    inside = {f"{name}" for name in own.state_dict()}
    assert {n for n in made.state_dict() if n.startswith(("class_", "bbox_", "norm"))} == inside
    assert made.class_embed[1] is made.predictor.class_embed[1]
    again = copy.deepcopy(made).eval()
    assert again.predictor is not own and not again.predictor.training
    assert again.predictor.norm is again.norm and again.norm is not made.norm


def test_a_predictor_and_its_modules_may_be_replaced():
    made = decoder(predictor(norm=nn.LayerNorm(WIDTH)))
    made.norm = nn.Identity()
    assert made.predictor.norm is made.norm and "norm.weight" not in made.state_dict()
    made.class_embed = nn.ModuleList(ClassHead(WIDTH, 2) for _ in range(LAYERS))
    assert made(queries(), memory())[0].logits.shape[-1] == 2
    made.predictor = Running()
    assert [n for n, _ in made.named_children()] == ["layers", "query_pos", "bins"]
    assert "distributions" in made(queries(), memory())[0].extras


def test_a_predictor_that_does_not_fit_changes_nothing():
    made = decoder(predictor())
    names = list(made.state_dict())
    with pytest.raises(ValueError, match="Bare"):
        made.predictor = Bare()
    assert list(made.state_dict()) == names and isinstance(made.predictor, BoxPredictor)


def test_conversions_reach_the_predictor():
    made = decoder(predictor(norm=nn.BatchNorm1d(4)))
    made = nn.SyncBatchNorm.convert_sync_batchnorm(made)
    assert isinstance(made.norm, nn.SyncBatchNorm) and made.predictor.norm is made.norm


def test_modules_set_on_the_predictor_alone_are_noticed():
    made = decoder(predictor())
    made.predictor.quality = nn.Linear(WIDTH, 1)
    with pytest.raises(RuntimeError, match=r"assign to decoder\.quality"):
        made.train()


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.layers = nn.Linear(2, 2)


def test_a_predictor_that_cannot_be_named():
    with pytest.raises(ValueError, match=r"Bare .*\['scale'\] .*\['layers'\]"):
        decoder(Bare())


def test_a_custom_layer_can_be_checkpointed():
    runs = []

    class Counted(Twice):
        def forward(self, x, **context):
            runs.append(1)
            return super().forward(x, **context)

    gradients = []
    for enabled in (False, True):
        runs.clear()
        made = Decoder(Counted(), LAYERS, FixedPosition(), predictor(),
                       activation_checkpointing=enabled)  # fmt: skip
        sum(o.logits.sum() for o in made(queries(), memory())).backward()
        assert len(runs) == (1 + enabled) * LAYERS
        gradients.append([layer.scale.grad for layer in made.layers])
    assert_close(*gradients)
