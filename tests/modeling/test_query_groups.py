"""Queries that only train: their noise, who sees whom, and what they are compared with."""

from __future__ import annotations

import pytest
import reference_ops
import torch
import zoo
from reference_recipe import recipe_value
from torch.testing import assert_close

from detrex.layers import box_cxcywh_to_xyxy
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.predictions import Prediction
from detrex.modeling.queries import Group, Queries
from detrex.modeling.query_groups import (
    ContrastiveDenoising,
    Denoising,
    GroupCopies,
    OneToMany,
)
from detrex.utils import inverse_sigmoid

REFERENCE = reference_ops.load("denoising")


def reference_targets():
    """Three objects in the first image, one in the second."""
    labels, boxes = REFERENCE["labels"], REFERENCE["boxes"]
    return [{"labels": labels[s], "boxes": boxes[s]} for s in (slice(0, 3), slice(3, 4))]


def matching(batch: int = 2, count: int = 5, channels: int = 8) -> Queries:
    torch.manual_seed(0)
    return Queries(torch.randn(batch, count, channels), torch.rand(batch, count, 4))


def plain(**changes) -> Denoising:
    options = {"num_groups": 3, "label_noise": 0.0, "box_noise": 0.0, **changes}
    module = Denoising(num_classes=5, embed_dim=8, **options)
    table = recipe_value("label_encoder.weight", tuple(module.labels.weight.shape))
    module.labels.weight.data = torch.from_numpy(table)
    return module


def further_queries(queries: Queries) -> tuple[torch.Tensor, torch.Tensor]:
    return queries.content[:, 5:], inverse_sigmoid(queries.anchors[:, 5:])


def test_denoising_without_noise_agrees_with_the_reference():
    content, boxes = further_queries(plain()(matching(), reference_targets()))
    assert_close(content, REFERENCE["dn_ind1_label_queries"])
    assert_close(boxes, REFERENCE["dn_ind1_box_queries"], rtol=1e-5, atol=1e-5)


def test_contrastive_boxes_without_noise_agree_with_the_reference():
    module = ContrastiveDenoising(5, 8, num_pairs=3, label_noise=0.0, box_noise=0.0)
    queries = module(matching(), reference_targets())
    content, boxes = further_queries(queries)
    assert_close(boxes, REFERENCE["cdn_box"], rtol=1e-5, atol=1e-5)
    assert_close(content[0, :3], module.labels.weight[REFERENCE["labels"][:3]])
    assert_close(content[0, 3:], content[0, :3])
    assert_close(content[1, [1, 2, 4, 5]], torch.zeros(4, 8))


@pytest.mark.parametrize(
    ("module", "name"),
    [(plain(), "dn_ind1_attn_mask"), (ContrastiveDenoising(5, 8, num_pairs=3), "cdn_attn_mask")],
)
def test_who_sees_whom_agrees_with_the_reference(module, name):
    """The reference has the further queries in front."""
    mask = module(matching(), reference_targets()).mask()
    order = torch.arange(len(mask)).roll(-5)
    assert torch.equal(mask[order][:, order], REFERENCE[name])


def test_one_group_of_queries_needs_no_mask():
    assert matching().mask() is None
    assert plain()(matching(), None).mask() is None


def test_groups_together():
    """Matching, one-to-many and denoising queries: only the last see others, and only the first."""
    queries = OneToMany(num_queries=3)(matching(), reference_targets())
    queries = plain(num_groups=2)(queries, reference_targets())
    sees = ~queries.mask()
    expected = torch.zeros(11, 11, dtype=torch.bool)
    for start, stop in ((0, 3), (3, 5), (5, 8), (8, 11)):
        expected[start:stop, start:stop] = True
    expected[5:, :3] = True
    assert torch.equal(sees, expected)


def test_unknown_label_and_indicator():
    module, before = plain(), matching()
    for targets in (None, reference_targets()):
        content = module(before, targets).content[:, :5]
        assert_close(content[..., :7], before.content[..., :7] + module.labels.weight[5])
        assert_close(content[..., 7], before.content[..., 7])
    unmarked = plain(unknown_label=False)(before, None)
    assert torch.equal(unmarked.content, before.content)


def test_denoising_queries_know_their_targets():
    group = plain()(matching(), reference_targets()).groups[-1]
    first, second = group.supervision.indices
    assert first[0].tolist() == list(range(9))
    assert first[1].tolist() == [0, 1, 2] * 3
    assert second[0].tolist() == [0, 3, 6]
    assert second[1].tolist() == [0, 0, 0]
    assert group.supervision.num_boxes_scale == group.parts == 3


def test_negative_queries_have_no_targets():
    group = ContrastiveDenoising(5, 8, num_pairs=7)(matching(), reference_targets()).groups[-1]
    first, second = group.supervision.indices
    assert group.parts == 2  # seven pairs for up to three targets
    assert first[0].tolist() == [0, 1, 2, 6, 7, 8]
    assert second[0].tolist() == [0, 6]


@pytest.mark.parametrize(
    ("most", "groups"), [(0, 100), (1, 100), (3, 33), (51, 1), (100, 1), (500, 1)]
)
def test_contrastive_groups_shrink_with_the_number_of_targets(most, groups):
    assert ContrastiveDenoising(5, 8, num_pairs=100).groups_for(most) == groups


def central_targets(count: int) -> list[dict[str, torch.Tensor]]:
    """Boxes so small and central that no noise reaches the border."""
    boxes = torch.tensor([0.5, 0.5, 0.1, 0.2]).repeat(count, 1)
    return [{"labels": torch.zeros(count, dtype=torch.long), "boxes": boxes}]


def noise_of(module: Denoising, count: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    targets = central_targets(count)
    anchors = module(matching(batch=1), targets).anchors[0, 5:].view(-1, count, 4)
    return anchors, targets[0]["boxes"]


def assert_uniform(values: torch.Tensor, low: float, high: float) -> None:
    """Range, mean and deviation of a uniform distribution, as far as the sample tells."""
    assert low - 1e-5 <= values.min() and values.max() <= high + 1e-5
    deviation = (high - low) / 12**0.5
    error = 5 * deviation / values.numel() ** 0.5
    assert values.mean().item() == pytest.approx((low + high) / 2, abs=error)
    assert values.std().item() == pytest.approx(deviation, rel=0.1)


def test_noise_of_boxes():
    anchors, boxes = noise_of(plain(num_groups=4, box_noise=0.4))
    moved = (anchors - boxes) / boxes[:, 2:].repeat(1, 2)
    for i, reach in enumerate((0.2, 0.2, 0.4, 0.4)):  # centers by half sizes, sizes by sizes
        assert_uniform(moved[..., i], -reach, reach)


def test_contrastive_noise_of_boxes():
    """Corners of the first kind move by up to half a size, those of the second by one to two."""
    module = ContrastiveDenoising(5, 8, num_pairs=2000, box_noise=0.4)
    anchors, boxes = noise_of(module)
    moved = box_cxcywh_to_xyxy(anchors) - box_cxcywh_to_xyxy(boxes)
    moved = moved / (boxes[:, 2:].repeat(1, 2) / 2)
    for i in range(4):
        assert_uniform(moved[0::2, :, i], -0.4, 0.4)
        assert_uniform(moved[1::2, :, i].abs(), 0.4, 0.8)
        assert (moved[1::2, :, i] > 0).float().mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("module", "probability"),
    [(plain(label_noise=0.2), 0.2), (ContrastiveDenoising(5, 8, label_noise=0.5), 0.25)],
)
def test_noise_of_labels(module, probability):
    torch.manual_seed(2)
    labels = torch.full((4, 5000), 3)
    noisy = module.noisy_labels(labels)
    # a class drawn at random is the right one in one of five draws
    changed = (noisy != labels).float().mean().item()
    assert changed == pytest.approx(probability * 4 / 5, abs=0.015)
    assert sorted(noisy.unique().tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(labels, torch.full((4, 5000), 3))


def test_boxes_stay_inside_the_image():
    module = ContrastiveDenoising(5, 8, num_pairs=300, box_noise=1.0)
    torch.manual_seed(3)
    anchors = module(matching(), reference_targets()).anchors
    assert (anchors > 0).all() and (anchors < 1).all()


@pytest.mark.parametrize("module", [plain(), ContrastiveDenoising(5, 8)])
def test_images_without_objects(module):
    """There are no queries then, but the table of labels still takes part, on every process."""
    empty = [{"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}] * 2
    queries = module(matching(), empty)
    assert queries.content.shape[1] == 5
    assert [group.size for group in queries.groups] == [5, 0]
    queries.content.sum().backward()
    assert module.labels.weight.grad is not None


def test_points_as_anchors():
    """Queries whose anchors are points and whose positions are learned (Conditional-DETR)."""
    before = matching()
    before.pos, before.anchors = torch.randn(2, 5, 8), before.anchors[..., :2]
    queries = plain()(before, reference_targets())
    assert queries.anchors.shape == (2, 14, 2)
    assert queries.pos.shape == (2, 14, 8)
    assert_close(queries.anchors[0, 5:8], REFERENCE["boxes"][:3, :2])


def test_queries_without_anchors_are_refused():
    with pytest.raises(ValueError, match="anchors"):
        plain()(Queries(torch.zeros(2, 5, 8)), reference_targets())


def test_one_to_many():
    queries = OneToMany(num_queries=3, repeats=2)(matching(), reference_targets())
    assert [group.size for group in queries.groups] == [3, 2]
    extra = queries.groups[1].supervision
    assert extra.num_boxes_scale == 2
    labels = REFERENCE["labels"][:3]
    assert torch.equal(extra.targets[0]["labels"], torch.cat((labels, labels)))
    boxes = REFERENCE["boxes"][:3]
    assert torch.equal(extra.targets[0]["boxes"], torch.cat((boxes, boxes)))


def test_one_to_many_with_fewer_queries_than_asked_for():
    """Small images have few proposals."""
    queries = OneToMany(num_queries=9)(matching(), reference_targets())
    assert [group.size for group in queries.groups] == [5, 0]


@pytest.mark.parametrize("module", [OneToMany(3), GroupCopies(3, num_groups=2)])
def test_evaluation_keeps_the_first_queries(module):
    before = matching(count=6)
    after = module(before, None)
    assert torch.equal(after.content, before.content[:, :3])
    assert torch.equal(after.anchors, before.anchors[:, :3])
    assert after.mask() is None


def test_group_copies_are_matched_each():
    """Every copy takes every target, as if it were alone."""
    torch.manual_seed(4)
    queries = GroupCopies(num_queries=4, num_groups=3)(matching(count=12), reference_targets())
    (group,) = queries.groups
    logits, boxes = torch.randn(2, 12, 5), torch.rand(2, 12, 4)
    matcher = HungarianMatcher(cost_class=2, cost_bbox=5, cost_giou=2)
    scale = group.supervision.num_boxes_scale
    assert scale == 3
    together = Prediction(logits, boxes, "", group.supervision)
    (found,) = matcher.match([together], reference_targets())
    for part in range(3):
        span = slice(4 * part, 4 * part + 4)
        (alone,) = matcher.match([Prediction(logits[:, span], boxes[:, span])], reference_targets())
        for image in range(2):
            query, target = found[image]
            inside = (query >= span.start) & (query < span.stop)
            assert torch.equal(query[inside] - span.start, alone[image][0])
            assert torch.equal(target[inside], alone[image][1])


def test_wrong_number_of_copies_is_refused():
    with pytest.raises(ValueError, match=r"2 groups of 4 .* makes 5"):
        GroupCopies(num_queries=4, num_groups=2)(matching(), reference_targets())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Denoising(5, 8, num_groups=0),
        lambda: ContrastiveDenoising(5, 8, num_pairs=0),
        lambda: OneToMany(5, repeats=0),
        lambda: GroupCopies(5, num_groups=0),
    ],
)
def test_nothing_to_train_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one"):
        wrong()


def test_members_of_plain_queries():
    assert matching().members() == [Group(5)]


BATCH = [
    zoo.image(64, 96, [(5, 8, 40, 50), (30, 10, 90, 60)], [0, 2]),
    zoo.image(80, 64, [(10, 10, 50, 40)], [1], seed=1),
]


@pytest.mark.parametrize(
    ("recipe", "parameter"),
    [
        ("dino/dino-resnet/dino_r50_4scale_12ep.py", "groups.denoising.labels.weight"),
        ("dn_deformable_detr/dn_deformable_detr_r50_50ep.py", "groups.denoising.labels.weight"),
        ("h_deformable_detr/h_deformable_detr_r50_50ep.py", "queries.content.weight"),
        ("group_detr/group_detr_r50_50ep.py", "queries.pos.weight"),
    ],
)
def test_nothing_leaks_into_matching_queries(recipe, parameter):
    """What further queries are made of has no influence on what the matching ones predict."""
    model = zoo.small_model(recipe).train()
    targets = model.prepare_targets(BATCH)
    predictions = model.predict(model.preprocess(BATCH), targets)
    matching = predictions[0]
    kept = model.num_queries
    weight = model.transformer.get_parameter(parameter)
    own = "queries" in parameter  # the first rows are those of the matching queries
    total = matching.logits[:, :kept].sum() + matching.boxes[:, :kept].sum()
    (grad,) = torch.autograd.grad(total, weight, retain_graph=True, allow_unused=True)
    foreign = torch.zeros(()) if grad is None else grad[kept:] if own else grad
    assert foreign.abs().max() == 0
    all_of_them = sum(p.logits.sum() for p in predictions)
    (grad,) = torch.autograd.grad(all_of_them, weight)
    assert (grad[kept:] if own else grad).abs().max() > 0
