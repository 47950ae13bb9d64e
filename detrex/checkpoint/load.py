"""Loading weights into a model, with an account of every name on either side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from detrex.checkpoint.backbone_rules import as_pointwise
from detrex.checkpoint.classes import ClassRows
from detrex.checkpoint.resnets import adapt_first_conv, check_origin, with_statistics
from detrex.checkpoint.rules import ADDED_TO_BACKBONE, CLASSIFIER, NOT_WEIGHTS, model_names
from detrex.utils.weight_files import CheckpointError, read_weight_file

__all__ = ["CheckpointError", "LoadReport", "check_same_names", "load_weights"]

Shape = tuple[int, ...]


class ClassWeight(NamedTuple):
    """A weight with a row per class, where the source has other classes."""

    source: Shape
    model: Shape
    copied: int
    """Rows that were copied."""


@dataclass
class LoadReport:
    """What became of each weight; names are the model's unless said otherwise."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Weights of the model that the source doesn't have; they keep their values."""
    unexpected: list[str] = field(default_factory=list)
    """The source's names that have no place in the model."""
    mismatched: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    """Weights whose shape (in the source, in the model) differs; they keep their values, but for
    rows of known classes."""
    class_rows: dict[str, ClassWeight] = field(default_factory=dict)
    """Weights with a row per class that are for other classes in the source. Rows that aren't
    copied keep their values, which are the initial ones in a new model."""
    kept_classes: list[str] = field(default_factory=list)
    """Classes whose rows were copied into a model for other classes."""
    source_classes: list[str] | None = None
    """The source's classes, if it names them."""
    ignored: list[str] = field(default_factory=list)
    """The source's names that no detector needs: batch counters, classifiers, loss constants."""

    def coverage(self) -> dict[str, tuple[int, int]]:
        """Per top-level module: weights loaded, weights in all."""
        counts: dict[str, tuple[int, int]] = {}
        absent = dict.fromkeys([*self.missing, *self.mismatched, *self.incomplete()])
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
                [
                    f"{n} {have} -> {want}"
                    for n, (have, want) in self.mismatched.items()
                    if n not in self.class_rows
                ],
            ),
        ):
            if names:
                lines.append(f"  {title} ({len(names)}): {_some(names)}")
        lines += self._about_classes()
        return "loaded weights:\n" + "\n".join(lines)

    def _about_classes(self) -> list[str]:
        if not self.class_rows:
            return []
        kept = f"those of {_some(self.kept_classes, 10)} are kept" if self.kept_classes else ""
        lines = [f"  for other classes; rows start anew{', but ' * bool(kept)}{kept}:"]
        for name, (source, model, copied) in self.class_rows.items():
            lines.append(f"    {name}: {source} -> {model}, {copied} rows kept")
        return lines

    def incomplete(self) -> list[str]:
        """Weights that got rows of some of their classes only."""
        return [name for name, w in self.class_rows.items() if w.copied < w.model[0]]

    def unfilled_backbone(self) -> list[str]:
        """Weights of the backbone that the source doesn't have.

        None of them are what a detector adds to a pretrained network, as long as that is filled.
        """
        absent = [n for n in [*self.missing, *self.mismatched] if n.startswith("backbone.")]
        filled = any(name.startswith("backbone.") for name in self.loaded)
        return [n for n in absent if not (filled and ADDED_TO_BACKBONE.match(n))]

    def check(self, source: str, allow_partial_backbone: bool = False) -> None:
        """Refuse weights that don't fit: nothing loaded, or a backbone that got only a part.

        Args:
            source: where the weights come from, for the message.
            allow_partial_backbone: let the rest of such a backbone keep its values.

        Raises:
            CheckpointError: naming ``source`` and the first names that differ.
        """
        if not self.loaded:
            raise CheckpointError(
                f"{source} doesn't fit this model: none of its weights has a place in it. "
                f"It has {_some([*self.unexpected, *self.mismatched, *self.ignored])}; the model "
                f"wants {_some(self.missing)}."
            )
        absent = self.unfilled_backbone()
        _, total = self.coverage().get("backbone", (0, 0))
        if 0 < len(absent) < total and not allow_partial_backbone:
            raise CheckpointError(
                f"{source} fills {total - len(absent)} of the backbone's {total} weights; the "
                f"rest, {_some(absent)}, would stay random. Is it of another network? To go on all "
                "the same, set train.allow_partial_backbone=true."
            )

    def check_complete(self, source: str, class_names: Sequence[str] | None = None) -> None:
        """Refuse weights that leave any of the model's as they were: it can't be evaluated so.

        Args:
            source: where the weights come from, for the message.
            class_names: of the data that it is to be evaluated on.

        Raises:
            CheckpointError: naming ``source`` and what it lacks, or which class differs.
        """
        self.check(source)
        if self.incomplete():
            name = self.incomplete()[0]
            weight = self.class_rows[name]
            raise CheckpointError(
                f"{source} is for other classes than the model: {name} is {weight.source} there, "
                f"{weight.model} here, and {weight.copied} rows fit. Set model.num_classes and "
                "the data set to those that it was trained with."
            )
        if class_names is not None and self.source_classes is not None:
            check_same_names(source, self.source_classes, class_names)
        absent = [*self.missing, *self.mismatched]
        if absent:
            raise CheckpointError(
                f"{source} lacks {len(absent)} of the model's weights: {_some(absent)}. "
                "Is it of another model?"
            )


def check_same_names(source: str, theirs: Sequence[str], ours: Sequence[str]) -> None:
    """Require the same classes in the same order, as a class is only its index to the model.

    Raises:
        CheckpointError: naming ``source`` and the first class that differs.
    """
    if list(theirs) == list(ours):
        return
    pairs = enumerate(zip_longest(theirs, ours, fillvalue="missing"))
    index, (there, here) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    raise CheckpointError(
        f"{source} was trained for other classes than the data set's: class {index} is {there!r} "
        f"there and {here!r} here ({len(theirs)} and {len(ours)} classes). Give the data the same "
        "categories in the same order."
    )


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") if names else "nothing"


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    class_names: Sequence[str] | None = None,
    source_class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Copy weights into a model, whatever they are called where they come from.

    Understood are this library's names, those of the public detrex, and ResNets of torchvision,
    timm and detectron2. What doesn't fit is left as it is and reported; nothing raises for it
    (see :meth:`LoadReport.check`).

    In a model for other classes the weights with a row per class (heads, and label tables of
    denoising) get the rows of those classes that have the same name on both sides, and the row of
    "no object"; the others keep their values.

    Args:
        model: the model, changed in place.
        source: a state dict, or a file (:func:`~detrex.checkpoint.read_state_dict`), also as a
            ``https://`` or ``detectron2://`` address.
        class_names: the model's classes, in their order.
        source_class_names: the source's classes; by default those that the file names, as
            checkpoints of this library do, or COCO's if it has other classes than the model and as
            many as COCO.

    Raises:
        FileNotFoundError, CheckpointError: the file can't be read; the model is then unchanged.
        ValueError: ``class_names`` are not as many as the model's classes.
    """
    if not isinstance(source, Mapping):
        file = read_weight_file(PathManager.get_local_path(str(source)))
        source, source_class_names = file.weights, source_class_names or file.class_names
    classes = ClassRows(getattr(model, "num_classes", None), class_names, source_class_names)
    state = model.state_dict()
    report = LoadReport()
    taken: dict[str, Tensor] = {}
    source = with_statistics(source)
    places_of = {name: model_names(name, state) for name in source}
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
            taken |= _fitted(place, part, state[place], classes, report)
    with torch.no_grad():
        for place, part in taken.items():
            state[place].copy_(part)
    report.kept_classes = classes.kept
    report.source_classes = None if source_class_names is None else list(source_class_names)
    partly = report.incomplete()
    report.loaded = [name for name in state if name in taken and name not in partly]
    report.missing = [
        name
        for name in state
        if name not in taken and name not in report.mismatched and not NOT_WEIGHTS.fullmatch(name)
    ]
    return report


def _fitted(
    place: str, part: Tensor, old: Tensor, classes: ClassRows, report: LoadReport
) -> dict[str, Tensor]:
    """What of a weight can take a place in the model, by this place; notes what can't."""
    have, want = tuple(part.shape), tuple(old.shape)
    if classes.differ(place, part, old):
        part, copied = classes.copied(part, old)
        report.class_rows[place] = ClassWeight(have, want, copied)
        if have == want or copied == want[0]:
            return {place: part}
        report.mismatched[place] = (have, want)
        return {place: part} if copied else {}
    if have == want:
        return {place: part}
    if not NOT_WEIGHTS.fullmatch(place):  # the model has its own, for another size of image
        report.mismatched[place] = (have, want)
    return {}
