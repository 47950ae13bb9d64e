"""Names of files that are about to be written."""

from __future__ import annotations

from pathlib import Path

__all__ = ["unused_path"]


def unused_path(path: Path) -> Path:
    """``path``, or if a file has that name ``path`` with ``_2``, ``_3``, ... before its ending."""
    candidate, number = path, 1
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return candidate
