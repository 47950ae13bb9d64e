"""Code beside configs: packages that a config imports relatively.

``from ..modeling.head import Head`` in a config names a file by its path. If that file belongs to a
package, it is imported as Python imports it: once, with relative imports of its own, and, where
the package can be found by name as well, as the very module of that name.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from omegaconf import Container

_INIT = "__init__.py"


def belongs_to_a_package(path: str, importer: str) -> bool:
    """Whether ``path`` (without ``.py``) is code for the config file ``importer``.

    Files in the folder of the importer and below are configs, whether or not the folders are
    packages.
    """
    path, folder = os.path.abspath(path), os.path.dirname(os.path.abspath(importer))
    inside = os.path.commonpath([path, folder]) == folder
    if os.path.isfile(path + ".py"):
        return not inside and os.path.isfile(os.path.join(os.path.dirname(path), _INIT))
    return os.path.isfile(os.path.join(path, _INIT))


def import_by_path(path: str, names: Sequence[str] = ()) -> ModuleType:
    """The module of the file ``path`` (without ``.py``), or of the package that is this folder;
    those of ``names`` that are modules of the package are imported, too."""
    path = os.path.abspath(path)
    package = os.path.isdir(path) and not os.path.isfile(path + ".py")
    module = _import(path, package)
    for name in names if package else ():
        if not hasattr(module, name) and _origin(f"{module.__name__}.{name}"):
            importlib.import_module(f"{module.__name__}.{name}")
    return module


def _import(path: str, package: bool) -> ModuleType:
    file = os.path.join(path, _INIT) if package else path + ".py"
    for module in list(sys.modules.values()):
        if module.__name__ != "__main__" and getattr(module, "__file__", None) == file:
            return module
    for entry in sys.path:
        root = os.path.abspath(entry or os.curdir)
        if path.startswith(root + os.sep):
            name = os.path.relpath(path, root).replace(os.sep, ".")
            if _origin(name) == file:
                return importlib.import_module(name)
    top = path if package else os.path.dirname(path)
    while os.path.isfile(os.path.join(os.path.dirname(top), _INIT)):
        top = os.path.dirname(top)
    below = os.path.relpath(path, top)
    name = _name_without_parent(top)
    return importlib.import_module(
        name if below == os.curdir else f"{name}.{below.replace(os.sep, '.')}"
    )


def with_fresh_configs(module: ModuleType, names: Sequence[str]) -> ModuleType:
    """``module`` with copies of the dictionaries and lists among ``names``: a config that changes
    them changes them for itself."""
    if "*" in names:
        names = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
    held = {name: getattr(module, name) for name in names if hasattr(module, name)}
    data = {name: v for name, v in held.items() if isinstance(v, (dict, list, Container))}
    if not data:
        return module
    copied: Any = ModuleType(module.__name__)
    vars(copied).update(vars(module) | copy.deepcopy(data))
    return copied


def _origin(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec else None


def _name_without_parent(folder: str) -> str:
    """A name for a package that is on no path, the same whenever it is asked for."""
    digest = hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest()[:8]
    name = f"_beside_configs_{digest}_{os.path.basename(folder)}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, os.path.join(folder, _INIT), submodule_search_locations=[folder]
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return name
