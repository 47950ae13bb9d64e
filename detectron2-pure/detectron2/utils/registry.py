"""Names of objects: from an object to a dotted name, and back."""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

from fvcore.common.registry import Registry

__all__ = ["Registry", "locate"]


def _convert_target_to_string(t: Any) -> str:
    """The shortest dotted name under which the class or function ``t`` can be imported.

    ``detectron2.data.transforms.augmentation_impl.RandomCrop`` becomes
    ``detectron2.data.transforms.RandomCrop`` because the package exports the same object. So do
    methods of objects that modules hold, such as ``MetadataCatalog.get``.
    """
    module, qualname = t.__module__, t.__qualname__
    owner = _name_in_module(module, t.__self__) if inspect.ismethod(t) else None
    if owner is not None:
        qualname = f"{owner}.{t.__name__}"
    parts = module.split(".")
    for depth in range(1, len(parts)):
        candidate = ".".join([*parts[:depth], qualname])
        try:
            found = locate(candidate)
            if found is t or (owner is not None and found == t):  # each access makes a method anew
                return candidate
        except ImportError:
            continue
    return f"{module}.{qualname}"


def _name_in_module(module: str, obj: Any) -> str | None:
    """The name under which a module holds an object, if it does."""
    values = vars(sys.modules.get(module, builtins))
    return next((name for name, value in values.items() if value is obj), None)


def locate(name: str) -> Any:
    """Import the object with the dotted name ``name``, for example ``"torch.nn.Linear"``.

    Modules win over attributes of the same name. Names without a dot may be builtins.

    Raises:
        ImportError: nothing has that name, or a module on the way to it fails to import.
    """
    parts = name.split(".")
    if not all(parts):
        raise ImportError(f"Cannot locate {name!r}: it is not a dotted name.")
    module, depth, reason = _import_longest(name, parts)
    obj: Any = builtins if module is None else module
    try:
        for part in parts[depth:]:
            obj = getattr(obj, part)
    except AttributeError as e:
        raise ImportError(f"Cannot locate {name!r}: {e}.") from (reason or e)
    return obj


def _import_longest(
    name: str, parts: list[str]
) -> tuple[ModuleType | None, int, ImportError | None]:
    """Import as many leading parts as are modules; also why the next one is not."""
    module: ModuleType | None = None
    for depth in range(1, len(parts) + 1):
        prefix = ".".join(parts[:depth])
        try:
            module = importlib.import_module(prefix)
        except ModuleNotFoundError as e:
            if e.name != prefix:
                raise ImportError(f"Cannot locate {name!r}: importing {prefix}: {e}") from e
            return module, depth - 1, e
        except Exception as e:
            raise ImportError(f"Cannot locate {name!r}: importing {prefix} failed: {e}") from e
    return module, len(parts), None
