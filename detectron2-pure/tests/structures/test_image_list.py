"""ImageList."""

import pytest
import torch
from detectron2.structures import ImageList
from torch.testing import assert_close


def images(*sizes, channels=(3,)):
    return [torch.rand(*channels, h, w) + 1 for h, w in sizes]


@pytest.mark.parametrize(
    ("kwargs", "shape"),
    [
        ({}, (15, 20)),
        ({"size_divisibility": 1}, (15, 20)),
        ({"size_divisibility": 4}, (16, 20)),
        ({"size_divisibility": 32}, (32, 32)),
        ({"padding_constraints": {"size_divisibility": 7}}, (21, 21)),
        ({"size_divisibility": 4, "padding_constraints": {"size_divisibility": 0}}, (16, 20)),
        ({"padding_constraints": {"square_size": 24}}, (24, 24)),
        ({"padding_constraints": {"square_size": 0}}, (15, 20)),
        ({"padding_constraints": {"square_size": 21, "size_divisibility": 4}}, (24, 24)),
    ],
)
@pytest.mark.parametrize("channels", [(), (3,), (2, 3)])
def test_padding(kwargs, shape, channels):
    inputs = images((10, 20), (15, 10), channels=channels)
    batch = ImageList.from_tensors(inputs, **kwargs)
    assert batch.tensor.shape == (2, *channels, *shape)
    assert batch.image_sizes == [(10, 20), (15, 10)]
    assert len(batch) == 2
    for i, image in enumerate(inputs):
        assert_close(batch[i], image)
        height, width = image.shape[-2:]
        assert not batch.tensor[i, ..., height:, :].any()
        assert not batch.tensor[i, ..., width:].any()


def test_pad_value():
    batch = ImageList.from_tensors(images((2, 3), (3, 2)), pad_value=7.0)
    assert (batch.tensor[0, :, 2:] == 7).all()
    assert (batch.tensor[1, :, :, 2:] == 7).all()


def test_sizes_are_plain_integers_and_to():
    batch = ImageList.from_tensors(images((2, 3))).to(torch.float64)
    assert all(type(v) is int for v in batch.image_sizes[0])
    assert batch.tensor.dtype == torch.float64
    assert batch.device == torch.device("cpu")


def test_inputs_are_not_changed():
    image = torch.ones(3, 4, 4)
    batch = ImageList.from_tensors([image])
    batch.tensor += 1
    assert_close(image, torch.ones(3, 4, 4))


def test_errors():
    with pytest.raises(ValueError, match="at least one image"):
        ImageList.from_tensors([])
    with pytest.raises(ValueError, match="at least one image"):
        ImageList.from_tensors(torch.rand(2, 3, 4, 4))
    with pytest.raises(ValueError, match="agree in all but"):
        ImageList.from_tensors([torch.rand(3, 4, 4), torch.rand(1, 4, 4)])
    with pytest.raises(ValueError, match="exceeds the square_size 8"):
        ImageList.from_tensors(images((9, 4)), padding_constraints={"square_size": 8})
