"""Loading weights into a model, with an account of every name on either side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from detrex.utils.weight_files import CheckpointError, read_state_dict

from .backbone_rules import as_pointwise
from .resnets import adapt_first_conv, check_origin, with_statistics
from .rules import CLASSIFIER, NOT_WEIGHTS, targets

__all__ = ["CheckpointError", "LoadReport", "load_weights"]

Shape = tuple[int, ...]


@dataclass
class LoadReport:
    """What became of each weight; names are the model's unless said otherwise."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Weights of the model that the source doesn't have; they keep their values."""
    unexpected: list[str] = field(default_factory=list)
    """The source's names that have no place in the model."""
    mismatched: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    """Weights whose shape (in the source, in the model) differs; they keep their values."""
    ignored: list[str] = field(default_factory=list)
    """The source's names that no detector needs: batch counters, classifiers, loss constants."""

    def coverage(self) -> dict[str, tuple[int, int]]:
        """Per top-level module: weights loaded, weights in all."""
        counts: dict[str, tuple[int, int]] = {}
        absent = [*self.missing, *self.mismatched]
        for names, got in ((self.loaded, 1), (absent, 0)):
            for name in names:
                module = name.split(".")[0]
                loaded, total = counts.get(module, (0, 0))
                counts[module] = (loaded + got, total + 1)
        return counts

    def __str__(self) -> str:
        lines = [f"  {m}: {a} of {b} weights" for m, (a, b) in sorted(self.coverage().items())]
        for title, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            (
                "of another shape",
                [f"{n} {have} -> {want}" for n, (have, want) in self.mismatched.items()],
            ),
        ):
            if names:
                lines.append(f"  {title} ({len(names)}): {_some(names)}")
        return "loaded weights:\n" + "\n".join(lines)

    def check(self, source: str) -> None:
        """Refuse weights that don't fit: nothing loaded, or a backbone that got only a part.

        Raises:
            CheckpointError: naming ``source`` and the first names that differ.
        """
        if not self.loaded:
            raise CheckpointError(
                f"{source} doesn't fit this model: none of its weights has a place in it. "
                f"It has {_some([*self.unexpected, *self.mismatched, *self.ignored])}; the model "
                f"wants {_some(self.missing)}."
            )
        got, total = self.coverage().get("backbone", (0, 0))
        if 0 < got < total:
            absent = [n for n in [*self.missing, *self.mismatched] if n.startswith("backbone.")]
            raise CheckpointError(
                f"{source} fills {got} of the backbone's {total} weights; the rest, "
                f"{_some(absent)}, would stay random. Is it of another network?"
            )


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") if names else "nothing"


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> LoadReport:
    """Copy weights into a model, whatever they are called where they come from.

    Understood are this library's names, those of the public detrex, and ResNets of torchvision,
    timm and detectron2. What doesn't fit is left as it is and reported; nothing raises for it
    (see :meth:`LoadReport.check`).

    Args:
        model: the model, changed in place.
        source: a state dict, or a file (:func:`~detrex.checkpoint.read_state_dict`), also as a
            ``https://`` or ``detectron2://`` address.

    Raises:
        FileNotFoundError, CheckpointError: the file can't be read; the model is then unchanged.
    """
    if not isinstance(source, Mapping):
        source = read_state_dict(PathManager.get_local_path(str(source)))
    state = model.state_dict()
    report = LoadReport()
    taken: dict[str, Tensor] = {}
    source = with_statistics(source)
    places_of = {name: targets(name, state) for name in source}
    check_origin(model, places_of)
    for name, tensor in source.items():
        places = places_of[name]
        if not places:
            skip = NOT_WEIGHTS.fullmatch(name) or CLASSIFIER.fullmatch(name)
            (report.ignored if skip else report.unexpected).append(name)
            continue
        for place, part in zip(
            places, tensor.chunk(len(places), -1) if len(places) > 1 else (tensor,), strict=True
        ):
            part = as_pointwise(adapt_first_conv(place, part, state[place]), state[place])
            have, want = tuple(part.shape), tuple(state[place].shape)
            if have == want:
                taken[place] = part
            else:
                report.mismatched[place] = (have, want)
    with torch.no_grad():
        for place, part in taken.items():
            state[place].copy_(part)
    report.loaded = [name for name in state if name in taken]
    report.missing = [
        name
        for name in state
        if name not in taken and name not in report.mismatched and not NOT_WEIGHTS.fullmatch(name)
    ]
    return report
