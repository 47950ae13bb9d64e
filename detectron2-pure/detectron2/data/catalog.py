"""``DatasetCatalog``: how to get a dataset by name. ``MetadataCatalog``: what is known about it.

Both are global to the process. The train and test loaders carry the metadata to their worker
processes, however these are started.
"""

from __future__ import annotations

import difflib
import logging
import types
from collections import UserDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from detectron2.utils.logger import log_first_n

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


def _closest(name: str, names: Iterable[str]) -> str:
    """A hint for a name that does not exist, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


class _DatasetCatalog(UserDict):
    """From names to functions that return ``list[dict]`` (or a torch Dataset).

    Functions are called by ``get`` only, so registering costs nothing and needs no files.
    """

    def register(self, name: str, func: Callable[[], Any]) -> None:
        """Name the dataset that ``func()`` returns.

        Raises:
            AssertionError: ``func`` is not callable, or the name is taken.
        """
        assert callable(func), "You must register a function with `DatasetCatalog.register`!"
        assert name not in self, (
            f"Dataset '{name}' is already registered! "
            "Choose another name, or DatasetCatalog.remove() the old one first."
        )
        self[name] = func

    def register_same(self, name: str, func: partial[Any]) -> None:
        """Like ``register``, but fine if the name has an equal ``func`` already.

        So a config or a notebook cell that registers its datasets can run twice.

        Args:
            name: of the dataset.
            func: a partial, which is equal to another one of the same function and arguments.

        Raises:
            AssertionError: the name is taken by something else.
        """
        known = self.data.get(name)
        if not isinstance(known, partial):
            self.register(name, func)
            return
        same = (known.func, known.args, known.keywords) == (func.func, func.args, func.keywords)
        assert same, (
            f"Dataset '{name}' is already registered! It was registered with {known.args}, now "
            f"with {func.args}; choose another name, or DatasetCatalog.remove() the old one first."
        )

    def get(self, name: str) -> Any:  # type: ignore[override]
        """Call the registered function and return its result.

        Raises:
            KeyError: nothing has that name.
        """
        try:
            func = self[name]
        except KeyError as e:
            raise KeyError(
                f"Dataset '{name}' is not registered!{_closest(name, self)} "
                f"Available datasets are: {', '.join(self)}"
            ) from e
        return func()

    def list(self) -> list[str]:
        """All names."""
        return list(self.keys())

    def remove(self, name: str) -> None:
        """Forget a dataset. Alias of ``pop``."""
        self.pop(name)

    def __str__(self) -> str:
        return f"DatasetCatalog(registered datasets: {', '.join(self)})"

    __repr__ = __str__


DatasetCatalog = _DatasetCatalog()
"""The catalog of this process."""


_RENAMED = {
    "class_names": "thing_classes",
    "dataset_id_to_contiguous_id": "thing_dataset_id_to_contiguous_id",
    "stuff_class_names": "stuff_classes",
}


def _current_name(key: str) -> str:
    """The name that replaced ``key``, with a warning, or ``key`` itself."""
    if key not in _RENAMED:
        return key
    log_first_n(
        logging.WARNING,
        f"Metadata '{key}' was renamed to '{_RENAMED[key]}'!",
        n=10,
        name=__name__,
        key="message",
    )
    return _RENAMED[key]


class Metadata(types.SimpleNamespace):
    """Facts about a dataset as attributes that can be set once.

    Setting an attribute again to an equal value is allowed.

    >>> MetadataCatalog.get("blood").set(thing_classes=["RBC", "WBC"])
    >>> MetadataCatalog.get("blood").thing_classes
    ['RBC', 'WBC']
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        # Called only for what is not there.
        if key.startswith("__") or key not in _RENAMED:
            raise AttributeError(self._missing(key))
        return getattr(self, _current_name(key))

    def _missing(self, key: str) -> str:
        text = f"Attribute '{key}' does not exist in the metadata of dataset '{self.name}'"
        known = [known for known in self.__dict__ if known != "name"]
        if known:
            return f"{text}. Available keys are: {', '.join(known)}."
        hint = "" if self.name in DatasetCatalog else _closest(self.name, DatasetCatalog)
        return f"{text}: metadata is empty.{hint}"

    def __setattr__(self, key: str, value: Any) -> None:
        key = _current_name(key)
        if key in self.__dict__ and self.__dict__[key] != value:
            raise AssertionError(
                f"Attribute '{key}' in the metadata of '{self.name}' cannot be set to a "
                f"different value!\n{self.__dict__[key]} != {value}"
            )
        super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """A shallow copy of all attributes, for reading them in bulk."""
        return dict(self.__dict__)

    def set(self, **kwargs: Any) -> Metadata:
        """Set several attributes.

        Returns:
            This object.

        Raises:
            AssertionError: an attribute is there with a different value.
        """
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or ``default`` if it is not there."""
        return self.__dict__.get(_RENAMED.get(key, key), default)


class _MetadataCatalog(UserDict):
    """From names to ``Metadata``, which come into being when first asked for."""

    def get(self, name: str) -> Metadata:  # type: ignore[override]
        """The metadata of a dataset, always the same object for a name.

        Raises:
            AssertionError: the name is empty.
        """
        assert len(name), "A dataset needs a name."
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def list(self) -> list[str]:
        """All names that have metadata; a dataset may be registered and have none."""
        return list(self.keys())

    def remove(self, name: str) -> None:
        """Forget the metadata of a dataset. Alias of ``pop``."""
        self.pop(name)

    def __str__(self) -> str:
        return f"MetadataCatalog(registered metadata: {', '.join(self)})"

    __repr__ = __str__


MetadataCatalog = _MetadataCatalog()
"""The metadata of this process."""
