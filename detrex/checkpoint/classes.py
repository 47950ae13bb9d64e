"""Weights with a row per class: what a model for other classes can keep of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from detectron2.data import MetadataCatalog
from torch import Tensor

ClassNames = Sequence[str | None]
"""By row; None for a row that stands for no class."""

_HAS_CLASS_ROWS = re.compile(
    r"(?:.*\.)?class_embed(?:\.\d+)?\.(?:weight|bias)|(?:.*\.)?groups\.\w+\.labels\.weight"
)


@dataclass
class ClassRows:
    """Matches rows of a source with rows of a model by the names of their classes.

    Args:
        num_classes: classes of the model; None if it doesn't say, and no row is matched then.
        names: the model's classes.
        source_names: the source's classes.
    """

    num_classes: int | None
    names: Sequence[str] | None = None
    source_names: Sequence[str] | None = None
    kept: list[str] = field(default_factory=list, init=False)
    """Classes whose rows were copied."""

    def __post_init__(self) -> None:
        if self.names is None:
            return
        if self.num_classes is None:
            self.num_classes = len(self.names)
        elif len(self.names) != self.num_classes:
            raise ValueError(
                f"there are {len(self.names)} class_names, but the model has {self.num_classes} "
                "classes: give one name per class, in their order."
            )

    def differ(self, name: str, have: Tensor, want: Tensor) -> bool:
        """Whether the rows of two weights stand for classes, but not for the same ones."""
        if not _HAS_CLASS_ROWS.fullmatch(name) or have.shape[1:] != want.shape[1:]:
            return False
        if have.shape != want.shape:
            return True
        named = self.names is not None and self.source_names is not None
        return named and list(map(_key, self.names or ())) != list(
            map(_key, self.source_names or ())
        )

    def copied(self, have: Tensor, want: Tensor) -> tuple[Tensor, int]:
        """The model's weight with the rows that the source has, and how many these are.

        A row beyond those of the classes ("no object", or "unknown class" of a label table) is the
        last one, in the source as in the model.
        """
        rows = self._rows(len(have), len(want))
        result = want.detach().clone()
        for here, there in rows.items():
            result[here] = have[there].to(result)
        return result, len(rows)

    def _rows(self, have: int, want: int) -> dict[int, int]:
        """Row here -> row there."""
        beyond = want - self.num_classes if self.num_classes is not None else -1
        if beyond not in (0, 1) or have <= beyond:
            return {}
        rows = {want - 1: have - 1} if beyond else {}
        source_names = self.source_names or _coco_names(have - beyond)
        if self.names is None or source_names is None or len(source_names) != have - beyond:
            return rows
        known = {_key(name): row for row, name in enumerate(source_names) if name is not None}
        found = {row: known[_key(n)] for row, n in enumerate(self.names) if _key(n) in known}
        self.kept = [self.names[row] for row in found]
        return rows | found


def _key(name: str | None) -> str:
    return "" if name is None else name.strip().casefold()


def _coco_names(count: int) -> ClassNames | None:
    """The classes of a model for COCO: 80 in a row, or 91 by category id; None for other counts."""
    coco = MetadataCatalog.get("coco_2017_val")
    if count == len(coco.thing_classes):
        return coco.thing_classes
    by_id = {i: coco.thing_classes[k] for i, k in coco.thing_dataset_id_to_contiguous_id.items()}
    return [by_id.get(i) for i in range(count)] if count == max(by_id) + 1 else None
