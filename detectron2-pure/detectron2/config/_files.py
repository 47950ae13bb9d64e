"""Run config files: plain Python whose relative imports go by path."""

from __future__ import annotations

import builtins
import difflib
import os
import sys
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

from detectron2.config._packages import (
    belongs_to_a_package,
    import_by_path,
    with_fresh_configs,
)
from detectron2.config.errors import ConfigError, describe, located
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig


def as_config(value: Any) -> Any:
    """Dictionaries become ``DictConfig``, everything else stays what it is."""
    if isinstance(value, dict):
        return DictConfig(value, flags={"allow_objects": True})
    return value


def run_config_file(filename: str, importers: tuple[str, ...] = ()) -> ModuleType:
    """Execute the Python config ``filename`` in a module of its own.

    Each call executes the file anew, and so does each relative import inside it, so that no
    two configs share state. The import statement is replaced inside the file only, through
    the module's own ``__builtins__``: the interpreter's stays untouched.

    Args:
        filename: path of the config file.
        importers: the config files that led to this one, outermost first.

    Raises:
        ConfigError: the file failed; also of the type of the original exception, its cause.
    """
    chain = (*importers, filename)
    module = ModuleType(f"_config_{uuid.uuid4().hex[:8]}_{_stem(filename)}")
    module.__file__ = filename
    module.__package__ = module.__name__
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(chain)}
    code = _compile(filename)
    with _listed(module):
        try:
            exec(code, vars(module))
        except ConfigError:
            raise
        except Exception as e:
            place = _innermost_line(e, filename)
            raise located(e, f"Config file {place} failed with {describe(e)}") from e
    return module


def require_file(filename: str) -> None:
    """Raise FileNotFoundError, naming near-by files, unless ``filename`` is a file."""
    if PathManager.isfile(filename):
        return
    if PathManager.isdir(filename):
        raise FileNotFoundError(f"Config file {filename} is a directory, not a file.")
    hint = _near_by(filename)
    raise FileNotFoundError(f"Config file {filename} does not exist{hint}.")


def _near_by(filename: str) -> str:
    folder, name = os.path.split(filename)
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        entries = sorted(os.listdir(folder or "."))
    except OSError:
        return ""
    if folder != os.path.dirname(filename):
        return f" (its folder neither; {folder or '.'} has {', '.join(entries[:8]) or 'no files'})"
    configs = [e for e in entries if e.endswith((".py", ".yaml", ".yml"))]
    close = difflib.get_close_matches(name, configs, n=3, cutoff=0.5) or configs[:5]
    return f"; near by there is {', '.join(close)}" if close else ""


def _stem(filename: str) -> str:
    return os.path.splitext(os.path.basename(filename))[0]


def _compile(filename: str) -> CodeType:
    with PathManager.open(filename, "r", encoding="utf-8") as f:
        source = f.read()
    try:
        return compile(source, filename, "exec")
    except (SyntaxError, ValueError) as e:
        line = f", line {e.lineno}" if isinstance(e, SyntaxError) else ""
        message = f"Config file {filename}{line} has a syntax error: {describe(e)}"
        raise located(e, message) from e


@contextmanager
def _listed(module: ModuleType) -> Iterator[None]:
    """While a file runs its module is importable by name, as dataclasses in it require."""
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        sys.modules.pop(module.__name__, None)


def _innermost_line(error: BaseException, filename: str) -> str:
    """``file, line n`` of the deepest frame that belongs to the config file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == filename
    ]
    return f"{filename}, line {lines[-1]}," if lines else filename


def _importer(chain: tuple[str, ...]) -> Any:
    """An ``__import__`` for the config file ``chain[-1]``."""

    def import_in_config(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        path = _relative_path(chain[-1], name, level)
        if belongs_to_a_package(path, chain[-1]):
            names = fromlist or ()
            return _with_configs(with_fresh_configs(import_by_path(path, names), names), names)
        filename = _require_config(chain[-1], name, level, path)
        if filename in chain:
            circle = " -> ".join([*chain[chain.index(filename) :], filename])
            raise ImportError(f"Config files import each other in a circle: {circle}")
        return _with_configs(run_config_file(filename, chain), fromlist or ())

    return import_in_config


def _with_configs(module: ModuleType, names: Sequence[str]) -> ModuleType:
    """The module, with dictionaries among the imported ``names`` as configs."""
    for key in list(vars(module)) if "*" in names else names:
        if not key.startswith("__") and key in vars(module):
            setattr(module, key, as_config(getattr(module, key)))
    return module


def _relative_path(importer: str, name: str, level: int) -> str:
    """The path that a relative import names, without ``.py``."""
    path = os.path.join(
        os.path.dirname(importer), *[os.pardir] * (level - 1), *filter(None, name.split("."))
    )
    return os.path.normpath(path) if level > 1 else path


def _require_config(importer: str, name: str, level: int, path: str) -> str:
    """The file of a config, given its path without ``.py``."""
    if not name:
        raise ImportError(
            f"{importer}: a relative import in a config file has to name another config "
            f"file, as in 'from {'.' * level}file import name'."
        )
    if not PathManager.isfile(path + ".py"):
        statement = f"from {'.' * level}{name} import ..."
        what = "does not exist"
        if PathManager.isdir(path):
            what = "is a folder without __init__.py"
        raise ImportError(f"{importer}: '{statement}' needs {path}.py, but that {what}.")
    return path + ".py"
