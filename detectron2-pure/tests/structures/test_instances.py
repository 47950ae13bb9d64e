"""Instances."""

import copy
import pickle

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.testing import assert_close


def make(n=3):
    return Instances(
        (10, 20),
        scores=torch.arange(float(n)),
        boxes=Boxes(torch.arange(4.0 * n).view(n, 4)),
        names=[f"n{i}" for i in range(n)],
    )


def test_fields():
    objects = make()
    assert objects.image_size == (10, 20)
    assert len(objects) == 3
    objects.classes = torch.zeros(3)
    assert objects.has("classes")
    assert objects.get("classes") is objects.classes
    assert set(objects.get_fields()) == {"scores", "boxes", "names", "classes"}
    objects.remove("classes")
    assert not objects.has("classes")
    with pytest.raises(AttributeError, match="Cannot find field 'classes'"):
        objects.classes  # noqa: B018
    objects._private = 3
    assert not objects.has("_private")


def test_length_is_checked():
    objects = make()
    message = "Adding a field of length 2 to a Instances of length 3"
    with pytest.raises(AssertionError, match=message):
        objects.wrong = torch.zeros(2)
    with pytest.raises(AssertionError, match=message):
        Instances((1, 1), a=[1, 2, 3], b=[1, 2])


def test_no_fields_no_length():
    with pytest.raises(NotImplementedError, match="Empty Instances does not support __len__!"):
        len(Instances((1, 1)))
    assert "num_instances=0" in repr(Instances((1, 1)))


def test_not_iterable():
    with pytest.raises(NotImplementedError, match="not iterable"):
        iter(make())
    with pytest.raises(NotImplementedError):
        list(make())


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (0, [0]),
        (2, [2]),
        (-1, [2]),
        (-3, [0]),
        (slice(1, None), [1, 2]),
        (slice(0, 0), []),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 0, 0]), [2, 0, 0]),
        (torch.tensor([], dtype=torch.long), []),
    ],
)
def test_indexing(item, expected):
    objects = make()
    chosen = objects[item]
    assert chosen.image_size == (10, 20)
    assert_close(chosen.scores, torch.tensor(expected, dtype=torch.float32))
    assert_close(chosen.boxes.tensor, objects.boxes.tensor[torch.tensor(expected, dtype=int)])
    assert chosen.names == [f"n{i}" for i in expected]


@pytest.mark.parametrize("item", [3, -4])
def test_index_out_of_range(item):
    with pytest.raises(IndexError, match="out of range"):
        make()[item]


def test_cat():
    one, two = make(3), make(2)
    both = Instances.cat([one, two])
    assert len(both) == 5
    assert_close(both.scores, torch.tensor([0.0, 1, 2, 0, 1]))
    assert len(both.boxes) == 5
    assert both.names == ["n0", "n1", "n2", "n0", "n1"]
    assert Instances.cat([one]) is one
    for wrong in ([], [one, 3]):
        with pytest.raises(AssertionError):
            Instances.cat(wrong)
    with pytest.raises(AssertionError, match="one image size"):
        Instances.cat([one, Instances((1, 1), scores=torch.zeros(1))])
    with pytest.raises(ValueError, match="'odd'"):
        Instances.cat([Instances((1, 1), odd=(1,)), Instances((1, 1), odd=(2,))])


def test_to_moves_what_can_move():
    moved = make().to(torch.float64)
    assert moved.scores.dtype == moved.boxes.tensor.dtype == torch.float64
    assert moved.names == ["n0", "n1", "n2"]


def test_copies():
    objects = make()
    for twin in (copy.deepcopy(objects), pickle.loads(pickle.dumps(objects))):
        twin.boxes.scale(2, 2)
        assert_close(objects.boxes.tensor, make().boxes.tensor)
        assert twin.names == objects.names
        assert twin.image_size == objects.image_size


def test_repr():
    text = repr(Instances((10, 20), scores=torch.tensor([0.5])))
    assert text == (
        "Instances(num_instances=1, image_height=10, image_width=20, "
        "fields=[scores: tensor([0.5000])])"
    )
