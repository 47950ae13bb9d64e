"""Try every architecture of timm as a backbone, without weights or memory.

python tools/sweep_backbones.py --output docs/backbones_swept.json
python tools/sweep_backbones.py --only "swin*"

Each network is built on torch's meta device and takes a training step on two images whose sides
are no multiple of anything, padded as a detector pads them. Its levels have to be what
``output_shape`` says, each of its parameters has to get a gradient, and no batch norm may be left
after freezing. A network that takes images of one size only is tried with a square of its own.
About 15 minutes on one core; the exit code is 1 if a network that was built breaks a promise.
"""

from __future__ import annotations

import argparse
import math
import pkgutil
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import timm
import torch
from detectron2.structures import ImageList
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from detrex.benchmark import write_json
from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.backbone.frozen_norm import freeze_all_norms
from detrex.modeling.backbone.timm_probe import parameters_behind

KINDS = ("any size", "squares of one size", "refused", "broken")
_SIDES = ((109, 167), (131, 90))
_EDGE = 4  # cells that convolutions without padding may lose, as in Inception


@dataclass
class Result:
    """What became of one architecture.

    Attributes:
        kind: one of ``KINDS``.
        parameters: how many numbers the trunk has.
        strides: of its levels.
        detail: the error, or the broken promises.
    """

    name: str
    kind: str
    parameters: int = 0
    strides: list[int | None] = field(default_factory=list)
    detail: str = ""


class _WithoutInitialization(TorchFunctionMode):
    """Leaves out what only fills tensors; on the meta device that is half of building a network."""

    fillers = frozenset(
        [Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.clamp_, Tensor.mul_, Tensor.add_]
        + [Tensor.fill_, Tensor.zero_]
    )

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.fillers and not torch.is_grad_enabled():
            return args[0]
        return func(*args, **(kwargs or {}))


def sweep_one(name: str) -> Result:
    """Build one architecture on the meta device and check what a detector relies on."""
    warnings.simplefilter("ignore")
    with torch.device("meta"), _WithoutInitialization():
        try:
            backbone = _build(name)
        except ValueError as error:
            return Result(name, "refused", detail=str(error))
        strides = [shape.stride for shape in backbone.output_shape().values()]
        result = Result(name, "any size", sum(p.numel() for p in backbone.parameters()), strides)
        if backbone.padding_constraints:
            result.kind = "squares of one size"
        try:
            breaches = check_promises(backbone)
        except Exception as error:  # whatever a network raises here is the finding
            breaches = [f"{type(error).__name__}: {error}"]
    if breaches:
        result.kind, result.detail = "broken", "; ".join(breaches)
    return result


def _build(name: str) -> TimmBackbone:
    """A backbone with all the levels that the network offers by default."""
    info: Any = timm.create_model(name, features_only=True).feature_info
    options: dict[str, Any] = {"out_indices": info.out_indices}
    strides = {level["reduction"] for level in info.info}
    if len(strides) == 1:
        options = {"out_strides": (*strides, *(2 * stride for stride in strides))}
    try:
        return TimmBackbone(name, **options)
    except ValueError:
        config: Any = timm.get_pretrained_cfg(name)
        own = config.input_size[-1]
        return TimmBackbone(name, img_size=own, **options)


def check_promises(backbone: TimmBackbone) -> list[str]:
    """What a backbone on the meta device does otherwise than it says."""
    square = backbone.padding_constraints.get("square_size", max(map(max, _SIDES)))
    images = [torch.empty(3, min(h, square), min(w, square)) for h, w in _SIDES]
    batch = ImageList.from_tensors(
        images, backbone.size_divisibility, padding_constraints=backbone.padding_constraints
    ).tensor
    levels = backbone.train()(batch)
    breaches = _shape_breaches(backbone, levels, batch)
    used = parameters_behind(*levels.values())
    parameters = dict(backbone.named_parameters())
    idle = [key for key, p in parameters.items() if p.requires_grad and id(p) not in used]
    if idle:
        breaches.append(f"{len(idle)} parameters get no gradient, like {idle[0]}")
    if any(isinstance(module, _BatchNorm) for module in backbone.modules()):
        frozen = freeze_all_norms(backbone.timm_model, backbone.model_name)
        left = {type(m).__name__ for m in frozen.modules() if isinstance(m, _BatchNorm)}
        if left:
            breaches.append(f"freezing leaves {', '.join(sorted(left))}")
    return breaches


def _shape_breaches(backbone: TimmBackbone, levels: dict[str, Tensor], batch: Tensor) -> list[str]:
    promised: dict[str, Any] = backbone.output_shape()
    breaches = [] if list(levels) == list(promised) else [f"levels are {list(levels)}"]
    for name, level in levels.items():
        shape = promised[name]
        exact = [side / shape.stride for side in batch.shape[2:]]
        sides = all(
            math.floor(n) - _EDGE <= got <= math.ceil(n)
            for n, got in zip(exact, level.shape[2:], strict=True)
        )
        if level.shape[:2] != (2, shape.channels) or not sides or not level.is_contiguous():
            breaches.append(f"{name} is {tuple(level.shape)} of {tuple(batch.shape)}, not {shape}")
    return breaches


def families() -> dict[str, list[str]]:
    """Architectures by the module of timm that they are in; not what others have registered."""
    own = {module.name for module in pkgutil.iter_modules(timm.models.__path__)}
    return {name: timm.list_models(module=name) for name in timm.list_modules() if name in own}


def summarize(results: Sequence[Result]) -> dict[str, Any]:
    """Counts in all and by family, each with its smallest network that works; and what doesn't."""
    by_name = {result.name: result for result in results}
    table: dict[str, Any] = {}
    for family, names in families().items():
        members = [by_name[name] for name in names if name in by_name]
        if members:
            working = [m for m in members if m.kind in KINDS[:2]] or members
            smallest = min(working, key=_kind_and_size)
            counts = Counter(member.kind for member in members)
            table[family] = {**_in_order(counts), "smallest": smallest.name}
    failures: dict[str, dict[str, str]] = defaultdict(dict)
    for result in results:
        if result.kind in KINDS[2:]:
            failures[result.kind][result.name] = result.detail
    return {
        "timm": timm.__version__,
        "architectures": len(results),
        "counts": _in_order(Counter(result.kind for result in results)),
        "families": table,
        "failures": failures,
    }


def _kind_and_size(result: Result) -> tuple[int, int]:
    return KINDS.index(result.kind), result.parameters


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def _print_table(summary: dict[str, Any]) -> None:
    print(f"{'family':28}" + "".join(f"{kind:>21}" for kind in KINDS))
    for family, row in summary["families"].items():
        print(f"{family:28}" + "".join(f"{row.get(kind, 0):21}" for kind in KINDS))
    counts = summary["counts"]
    print(f"{'all':28}" + "".join(f"{counts.get(kind, 0):21}" for kind in KINDS))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", help="pattern of names, like 'swin*'")
    parser.add_argument("--output", type=Path, help="JSON file for the table")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args(arguments)
    names = [name for name in timm.list_models() if fnmatch(name, args.only)]
    if not names:
        parser.error(f"timm {timm.__version__} has no network like {args.only!r}.")
    results = []
    with ProcessPoolExecutor(args.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for result in pool.map(sweep_one, names):
            results.append(result)
            print(
                f"{len(results)}/{len(names)} {result.name}: {result.kind} {result.detail}",
                flush=True,
            )
    summary = summarize(results)
    _print_table(summary)
    if args.output:
        write_json(args.output, summary)
    return int(any(result.kind == "broken" for result in results))


if __name__ == "__main__":
    sys.exit(main())
