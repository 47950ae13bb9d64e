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
    with pytest.raises(ValueError, match="nothing but tensors"):
        ImageList.from_tensors([torch.rand(3, 4, 4).tolist()])
    with pytest.raises(ValueError, match="exceeds the square_size 8"):
        ImageList.from_tensors(images((9, 4)), padding_constraints={"square_size": 8})


def test_torchscript():
    def batch(images: list[torch.Tensor]):
        return ImageList.from_tensors(images, 4, 1.0, {"square_size": 8})

    images = [torch.rand(3, 5, 6), torch.rand(3, 7, 2)]
    scripted, eager = torch.jit.script(batch)(images), batch(images)
    assert scripted.image_sizes == eager.image_sizes == [(5, 6), (7, 2)]
    assert_close(scripted.tensor, eager.tensor)
    assert_close(scripted[1], images[1])


@pytest.mark.parametrize("shape", [(3, 10, 10), (3, 12, 12), (10, 10)])
def test_a_trace_holds_for_other_sizes(shape):
    def batch(images):
        result = ImageList.from_tensors(images, 4)
        return result.tensor, result.image_sizes

    first, second = torch.rand(*shape[:-2], 15, 20), torch.rand(*shape[:-2], 18, 7)
    traced = torch.jit.trace(batch, ([torch.ones(shape), torch.ones(shape)],))
    tensor, sizes = traced([first, second])
    assert [size.tolist() for size in sizes] == [[15, 20], [18, 7]]
    assert_close(tensor, batch([first, second])[0])
