"""What an augmentation is, and what it works on."""

from __future__ import annotations

import inspect
import pprint
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "apply_augmentations",
]


def _check_img_dtype(img: Any) -> None:
    """Raise AssertionError unless ``img`` is an (H, W[, C]) array of uint8 or float."""
    assert isinstance(img, np.ndarray), (
        f"[Augmentation] Needs a numpy array, but got a {type(img)}!"
    )
    assert img.dtype == np.uint8 or np.issubdtype(img.dtype, np.floating), (
        f"[Augmentation] Got image of type {img.dtype}, use uint8 or floating points instead!"
    )
    assert img.ndim in (2, 3), f"[Augmentation] Needs H x W or H x W x C, got shape {img.shape}."


def _input_names(augmentation: Augmentation) -> tuple[str, ...]:
    """The attributes of the ``AugInput`` that ``augmentation.get_transform`` takes, in order."""
    if augmentation.input_args is not None:
        return augmentation.input_args
    parameters = list(inspect.signature(augmentation.get_transform).parameters.values())
    if len(parameters) == 1:
        # A sole parameter is the image whatever its name: many call it "img".
        names: tuple[str, ...] = ("image",)
    else:
        names = tuple(p.name for p in parameters)
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            raise TypeError(
                f"{type(augmentation).__name__}.get_transform() has *args or **kwargs, so its "
                "inputs are not known: give the class an `input_args` tuple of attribute names."
            )
    augmentation.input_args = names
    return names


def _get_aug_input_args(augmentation: Augmentation, aug_input: AugInput) -> list[Any]:
    """The arguments for ``augmentation.get_transform``, read from ``aug_input``."""
    values = []
    for name in _input_names(augmentation):
        try:
            values.append(getattr(aug_input, name))
        except AttributeError as e:
            raise AttributeError(
                f"{type(augmentation).__name__}.get_transform needs input attribute '{name}', "
                f"but it is not an attribute of {type(aug_input).__name__}!"
            ) from e
    return values


class Augmentation:
    """A random policy: looks at the input, returns the ``Transform`` to apply to it.

    Subclasses write ``get_transform(self, image, ...)``, whose parameters are filled by name
    from the attributes of the ``AugInput`` (a sole parameter is always the image), and draw from
    numpy's global generator only, which the loader seeds for every sample.

    Attributes:
        input_args: names of the parameters; None lets the signature tell.
    """

    input_args: tuple[str, ...] | None = None

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Keep ``locals()`` of a constructor as attributes, without self and ``_names``."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        """The transform for this input; must not change the input.

        Raises:
            NotImplementedError: the subclass has none.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform().")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Transform ``aug_input`` in place and return what was done to it."""
        transform = self.get_transform(*_get_aug_input_args(self, aug_input))
        assert isinstance(transform, Transform), (
            f"{type(self).__name__}.get_transform must return an instance of Transform! "
            f"Got {type(transform)} instead."
        )
        aug_input.transform(transform)
        return transform

    def _rand_range(self, low: float = 1.0, high: float | None = None, size: Any = None) -> Any:
        """Uniform in [low, high), or in [0, low) when ``high`` is not given."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, size)

    def __repr__(self) -> str:
        """``ClassName(argument=value, ...)`` without the arguments left at their default.

        Falls back to Python's own when the attributes don't mirror the constructor.
        """
        arguments = []
        for name, parameter in inspect.signature(self.__init__).parameters.items():  # type: ignore[misc]
            mirrored = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if not mirrored or name not in self.__dict__:
                return super().__repr__()
            value = self.__dict__[name]
            # Identity, since == of arrays is no bool: an equal value of the caller's is shown.
            if value is not parameter.default:
                text = pprint.pformat(value)
                arguments.append(f"{name}={'...' if chr(10) in text else text}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    __str__ = __repr__


class _TransformToAug(Augmentation):
    """An augmentation that always applies the same transform."""

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm

    def __call__(self, aug_input: AugInput) -> Transform:
        aug_input.transform(self.tfm)
        return self.tfm

    def __repr__(self) -> str:
        return repr(self.tfm)

    __str__ = __repr__


def _transform_to_aug(tfm_or_aug: Transform | Augmentation) -> Augmentation:
    """An ``Augmentation`` from either kind."""
    if isinstance(tfm_or_aug, Augmentation):
        return tfm_or_aug
    assert isinstance(tfm_or_aug, Transform), (
        f"Needs an Augmentation or a Transform, got {tfm_or_aug!r} of type {type(tfm_or_aug)}."
    )
    return _TransformToAug(tfm_or_aug)


class AugmentationList(Augmentation):
    """Apply augmentations one after another; each sees the result of the one before.

    Args:
        augs: augmentations and plain transforms.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        self.augs = [_transform_to_aug(aug) for aug in augs]

    def __call__(self, aug_input: AugInput) -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(str(aug) for aug in self.augs)}]"

    __str__ = __repr__


class AugInput:
    """The things that augmentations may look at; transformed together, in place.

    A subclass with more attributes (and a ``transform`` that handles them) works with
    augmentations that name those attributes.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or float.
        boxes: (N, 4), absolute xyxy, or None.
        sem_seg: (H, W) integers, or None.

    Raises:
        AssertionError: the image is no such array.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        _check_img_dtype(image)
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply ``tfm`` to everything there is."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(
        self, augmentations: Sequence[Augmentation | Transform]
    ) -> TransformList:
        """``AugmentationList(augmentations)(self)``."""
        return AugmentationList(augmentations)(self)


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: AugInput | np.ndarray
) -> tuple[Any, TransformList]:
    """Augment an ``AugInput`` (in place) or a bare image.

    Returns:
        The augmented input, of the type that was given, and the transforms that were applied,
        for use on further things that belong to the image.
    """
    if isinstance(inputs, np.ndarray):
        aug_input = AugInput(inputs)
        transforms = aug_input.apply_augmentations(augmentations)
        return aug_input.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)


# Names from before these things were called augmentations; old projects import them.
apply_transform_gens = apply_augmentations
TransformGen = Augmentation
StandardAugInput = AugInput
