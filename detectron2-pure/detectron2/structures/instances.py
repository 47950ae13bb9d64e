"""The objects of one image, as columns of equal length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Instances"]


class Instances:
    """N objects of one image: fields such as boxes, classes and scores, each of length N.

    Every attribute whose name does not start with an underscore is a field:

    >>> objects = Instances((480, 640))
    >>> objects.scores = torch.tensor([0.9, 0.2])
    >>> objects[objects.scores > 0.5].scores
    tensor([0.9000])

    Args:
        image_size: (height, width) of the image in pixels.
        kwargs: fields.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"Cannot find field '{name}' in the given Instances!")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set the field ``name``; its length has to be that of the other fields."""
        others = [field for key, field in self._fields.items() if key != name]
        if others and len(others[0]) != len(value):
            raise AssertionError(
                f"Adding a field of length {len(value)} to a Instances of length {len(others[0])}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Whether there is a field ``name``."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Remove the field ``name``."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """The field ``name``."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """All fields by name; changing the dictionary changes the instances."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """New instances whose fields are moved if they can be, as of ``Tensor.to``."""
        result = Instances(self._image_size)
        for name, field in self._fields.items():
            result.set(name, field.to(*args, **kwargs) if hasattr(field, "to") else field)
        return result

    def __getitem__(self, item: int | slice | Tensor) -> Instances:
        """New instances with every field indexed; an integer gives instances of length 1."""
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError("Instances index out of range!")
            item = slice(item, item + 1 or None)
        result = Instances(self._image_size)
        for name, field in self._fields.items():
            result.set(name, _index(field, item))
        return result

    def __len__(self) -> int:
        for field in self._fields.values():
            return len(field)
        raise NotImplementedError("Empty Instances does not support __len__!")

    def __iter__(self) -> Any:
        raise NotImplementedError("`Instances` object is not iterable!")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """All objects of several instances of equal image size and fields, in order.

        A single one is returned as it is.
        """
        if not instance_lists or not all(isinstance(i, Instances) for i in instance_lists):
            raise AssertionError("Instances.cat() takes at least one Instances, and nothing else.")
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        if any(i.image_size != first.image_size for i in instance_lists[1:]):
            sizes = ", ".join(str(i.image_size) for i in instance_lists)
            raise AssertionError(f"Instances.cat() needs one image size, not {sizes}.")
        result = Instances(first.image_size)
        for name in first._fields:
            result.set(name, _cat([i.get(name) for i in instance_lists], name))
        return result

    def __str__(self) -> str:
        count = len(self) if self._fields else 0
        fields = ", ".join(f"{name}: {field}" for name, field in self._fields.items())
        return (
            f"Instances(num_instances={count}, image_height={self._image_size[0]}, "
            f"image_width={self._image_size[1]}, fields=[{fields}])"
        )

    __repr__ = __str__


def _index(field: Any, item: Any) -> Any:
    if isinstance(field, list | tuple) and isinstance(item, Tensor):
        indices = item.nonzero().flatten() if item.dtype == torch.bool else item
        return type(field)(field[i] for i in indices.tolist())
    return field[item]


def _cat(values: list[Any], name: str) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values, dim=0)
    if isinstance(first, list):
        return list(itertools.chain(*values))
    if hasattr(type(first), "cat"):
        return type(first).cat(values)
    raise ValueError(
        f"Instances.cat() cannot join the field {name!r}: {type(first).__name__} is neither a "
        "tensor nor a list and has no cat()."
    )
