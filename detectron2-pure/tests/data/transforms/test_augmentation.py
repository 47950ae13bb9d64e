"""What augmentations are given and what they return."""

from unittest import mock

import numpy as np
import pytest
from detectron2.data import transforms as T


class Shift(T.Transform):
    """Adds a number to everything, to see what was transformed."""

    def __init__(self, by=1):
        self.by = by

    def apply_image(self, img):
        return img + self.by

    def apply_coords(self, coords):
        return coords + self.by

    def apply_segmentation(self, segmentation):
        return segmentation + self.by


def an_input(**kwargs):
    return T.AugInput(np.zeros((4, 6), dtype=np.float32), **kwargs)


def test_everything_in_the_input_is_transformed():
    boxes, labels = np.zeros((2, 4)), np.zeros((4, 6), dtype=np.int64)
    inputs = an_input(boxes=boxes, sem_seg=labels)
    transforms = inputs.apply_augmentations([Shift(2), Shift(3)])
    assert [t.by for t in transforms] == [2, 3]
    np.testing.assert_array_equal(inputs.image, np.full((4, 6), 5))
    np.testing.assert_array_equal(inputs.boxes, np.full((2, 4), 5))
    np.testing.assert_array_equal(inputs.sem_seg, np.full((4, 6), 5))
    np.testing.assert_array_equal(transforms.apply_coords(np.zeros((1, 2))), [[5, 5]])


def test_arguments_are_filled_by_name():
    seen = {}

    class Both(T.Augmentation):
        def get_transform(self, sem_seg, image):
            seen.update(sem_seg=sem_seg, image=image)
            return T.NoOpTransform()

    class Sole(T.Augmentation):
        def get_transform(self, whatever):
            seen["sole"] = whatever
            return T.NoOpTransform()

    class Extra(T.AugInput):
        def __init__(self, image, depth):
            super().__init__(image)
            self.depth = depth

    class UsesExtra(T.Augmentation):
        def get_transform(self, image, depth):
            seen["depth"] = depth
            return T.NoOpTransform()

    labels = np.ones((4, 6), dtype=np.int64)
    inputs = an_input(sem_seg=labels)
    inputs.apply_augmentations([Both(), Sole()])
    assert seen["sem_seg"] is labels and seen["image"] is inputs.image
    assert seen["sole"] is inputs.image
    Extra(inputs.image, 7).apply_augmentations([UsesExtra()])
    assert seen["depth"] == 7


def test_unknown_arguments_are_named():
    class Wrong(T.Augmentation):
        def get_transform(self, image, nonexist):
            raise AssertionError("not called")

    class Variadic(T.Augmentation):
        def get_transform(self, image, *rest):
            raise AssertionError("not called")

    with pytest.raises(
        AttributeError, match=r"Wrong.get_transform needs input attribute 'nonexist'"
    ):
        an_input().apply_augmentations([Wrong()])
    with pytest.raises(TypeError, match=r"Variadic.get_transform\(\) has \*args"):
        an_input().apply_augmentations([Variadic()])
    with pytest.raises(NotImplementedError, match="Augmentation does not define get_transform"):
        T.Augmentation().get_transform()


def test_result_has_to_be_a_transform():
    class Wrong(T.Augmentation):
        def get_transform(self, image):
            return image

    with pytest.raises(AssertionError, match="must return an instance of Transform"):
        an_input().apply_augmentations([Wrong()])


def test_bare_images_and_inputs():
    image = np.zeros((4, 6), dtype=np.uint8)
    out, transforms = T.apply_augmentations([Shift()], image)
    np.testing.assert_array_equal(out, image + 1)
    assert isinstance(transforms, T.TransformList) and len(transforms) == 1
    inputs = an_input()
    out, _ = T.apply_augmentations([T.AugmentationList([Shift(), Shift()])], inputs)
    assert out is inputs and (inputs.image == 2).all()


@pytest.mark.parametrize(
    ("image", "match"),
    [
        ([[1]], "Needs a numpy array"),
        (np.zeros((2, 2), dtype=np.int64), "image of type int64"),
        (np.zeros((2, 2, 2, 2), dtype=np.uint8), "Needs H x W"),
    ],
)
def test_wrong_images(image, match):
    with pytest.raises(AssertionError, match=match):
        T.AugInput(image)


def test_repr():
    assert str(T.RandomCrop("relative", (100, 100))) == (
        "RandomCrop(crop_type='relative', crop_size=(100, 100))"
    )
    flip, plain = T.RandomFlip(prob=0.25), T.RandomFlip()
    assert (str(flip), repr(plain)) == ("RandomFlip(prob=0.25)", "RandomFlip()")
    assert str(T.AugmentationList([flip, plain])) == f"AugmentationList[{flip}, {plain}]"
    assert str(T.RandomApply(flip)) == f"RandomApply(tfm_or_aug={flip})"
    assert "shape_list=..." in str(T.RandomResize([(1000, 1000)] * 20))

    class Own(T.Augmentation):
        def __init__(self, *values):
            pass

    class Forgets(T.Augmentation):
        def __init__(self, value):
            pass

    assert "Own object at" in repr(Own(1)) and "Forgets object at" in repr(Forgets(1))


def test_init_and_rand_range():
    class Own(T.Augmentation):
        def __init__(self, a, b=2):
            super().__init__()
            _private = 1
            self._init(locals())

    assert vars(Own(1)) == {"a": 1, "b": 2}
    np.random.seed(0)
    draws = [T.Augmentation()._rand_range() for _ in range(100)]
    assert min(draws) >= 0 and 0.9 < max(draws) < 1
    assert T.Augmentation()._rand_range(5, 6, size=(2, 3)).shape == (2, 3)
    assert all(0 <= T.Augmentation()._rand_range(0.1) < 0.1 for _ in range(20))


@pytest.mark.parametrize("prob", [-0.1, 1.5])
def test_random_apply_needs_a_probability(prob):
    with pytest.raises(AssertionError, match=f"between 0.0 and 1.0.*{prob}"):
        T.RandomApply(T.RandomFlip(), prob)


def test_random_apply():
    image = np.zeros((2, 3))
    inner = mock.MagicMock(spec=T.Augmentation)
    apply = T.RandomApply(inner, prob=0.3)
    with mock.patch.object(apply, "_rand_range", return_value=0.2):
        assert apply.get_transform(image) is inner.get_transform.return_value
    inner.get_transform.assert_called_once_with(image)
    with mock.patch.object(apply, "_rand_range", return_value=0.3):
        assert isinstance(apply.get_transform(image), T.NoOpTransform)
    transform = Shift()
    apply = T.RandomApply(transform, prob=1.0)
    assert apply.get_transform(image) is transform
    inputs = an_input()
    assert apply(inputs) is transform and (inputs.image == 1).all()


def test_random_apply_of_a_list():
    inputs = an_input()
    apply = T.RandomApply(T.AugmentationList([Shift(), Shift()]), prob=1.0)
    assert len(apply(inputs)) == 2 and (inputs.image == 2).all()
    assert isinstance(T.RandomApply(Shift(), prob=0.0)(an_input()), T.NoOpTransform)


def test_old_names():
    assert T.TransformGen is T.Augmentation
    assert T.StandardAugInput is T.AugInput
    assert T.apply_transform_gens is T.apply_augmentations
