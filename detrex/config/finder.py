"""Find the configs that come with detrex, in a checkout and in an installed package alike."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig

__all__ = ["config_root", "get_config", "get_config_file"]


def config_root() -> Path:
    """The directory that holds ``common/train.py`` and the other configs.

    Raises:
        FileNotFoundError: neither the installed package nor a checkout around it has one.
    """
    package = Path(__file__).resolve().parent
    # An installed detrex carries the configs inside the package, a checkout beside it.
    for root in (package / "configs", package.parent.parent / "configs"):
        if (root / "common" / "train.py").is_file():
            return root
    raise FileNotFoundError(
        f"detrex's configs are neither in {package / 'configs'} nor beside the package; "
        "install detrex again (`pip install .` in a checkout)."
    )


def get_config_file(config_path: str) -> str:
    """Path of a config that comes with detrex.

    Args:
        config_path: relative to the configs, such as ``common/train.py`` or
            ``dab_deformable_detr/dab_deformable_detr_r50_50ep.py``.

    Raises:
        FileNotFoundError: there is no such config; the message names the nearest ones.
    """
    root = config_root()
    file = root / config_path
    if file.is_file():
        return str(file)
    known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.py"))
    nearest = _nearest(config_path, known)
    raise FileNotFoundError(
        f"detrex has no config {config_path!r}; the nearest are {', '.join(nearest)} (in {root})."
    )


def get_config(config_path: str) -> Any:
    """Load a config that comes with detrex.

    Args:
        config_path: as for ``get_config_file``.

    Returns:
        The file's top-level configuration values, e.g. ``get_config("common/train.py").train``.

    Raises:
        FileNotFoundError: there is no such config.
    """
    return LazyConfig.load(get_config_file(config_path))


def _nearest(config_path: str, known: list[str], count: int = 3) -> list[str]:
    """Known paths that look like the asked one; a right file name counts more than its folder."""
    names = {path: Path(path).name for path in known}

    def similarity(path: str) -> float:
        whole = difflib.SequenceMatcher(None, config_path, path).ratio()
        name = difflib.SequenceMatcher(None, Path(config_path).name, names[path]).ratio()
        return whole + name

    return sorted(known, key=similarity, reverse=True)[:count]
