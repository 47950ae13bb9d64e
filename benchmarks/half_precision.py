"""What half precision does to a trained model: AP, and how far boxes and scores move.

    python benchmarks/half_precision.py --config-file F --checkpoint model_final.pth key=value ...

Evaluates the model as it was trained and as ``for_inference`` makes it ready in ``--dtype``, on the
test set of the config. Each detection with a score above ``--min-score`` is looked for among all of
the other's, whatever their scores: of its class, the nearest box. A distance is that of the edge
that moved most, in pixels.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from detrex.benchmark import output_path, write_json
from detrex.config import load_config
from detrex.engine.build import build_evaluated_model
from detrex.engine.errors import SetupError, setup_errors
from detrex.engine.evaluation import Evaluation
from detrex.modeling.inference import for_inference

DTYPES = ("bfloat16", "float16", "float32")


class Remembering(nn.Module):
    """A model whose detections are kept, in the order of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.found: list[Instances] = []

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        results: list[dict[str, Instances]] = self.model(batch)
        self.found += [result["instances"].to(torch.device("cpu")) for result in results]
        return results


def moved(of: Instances, among: Instances, min_score: float) -> Tensor:
    """Of each sure detection its distance in pixels from the nearest of its class, infinite without
    one, and by how much their scores differ: ``(N, 2)``."""
    sure = of[of.scores > min_score]
    if not len(among):
        return torch.stack((torch.full_like(sure.scores, float("inf")), sure.scores), 1)
    apart = torch.cdist(sure.pred_boxes.tensor, among.pred_boxes.tensor, p=float("inf"))
    others = sure.pred_classes[:, None] != among.pred_classes
    pixels, nearest = apart.masked_fill(others, float("inf")).min(1)
    change = (sure.scores - among.scores[nearest]).abs()
    return torch.stack((pixels, torch.where(pixels.isfinite(), change, sure.scores)), 1)


def both_ways(a: list[Instances], b: list[Instances], min_score: float) -> Iterator[Tensor]:
    """``moved`` of all images, of the first detections and of the second."""
    for of, among in zip(a, b, strict=True):
        yield moved(of, among, min_score)
        yield moved(among, of, min_score)


def summary(changes: Tensor) -> dict[str, Any]:
    """Of ``(N, 2)`` changes; a distance is None where a detection has no counterpart."""
    pixels, scores = changes.numpy().T
    levels = (0.5, 0.9, 0.99, 1.0)
    quantiles = [float(np.quantile(pixels, level, method="higher")) for level in levels]
    return {
        "detections": len(pixels),
        "within 1 pixel": float((pixels <= 1).mean()),
        "pixels": {
            f"{level:.0%}": value if math.isfinite(value) else None
            for level, value in zip(levels, quantiles, strict=True)
        },
        "largest change of a score": float(scores.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config-file", required=True, help="a LazyConfig file")
    parser.add_argument("--checkpoint", required=True, help="trained weights of its model")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--backbone-dtype", choices=DTYPES, help="if another")
    parser.add_argument("--min-score", type=float, default=0.3, help="of detections that count")
    parser.add_argument("--output", type=output_path, help="json file for the results")
    parser.add_argument("overrides", nargs="*", help="changes to the config: key=value")
    args = parser.parse_args()
    try:
        with setup_errors():
            cfg = load_config(args.config_file, args.overrides, eval_only=True)
            evaluation = Evaluation(cfg)
            model = build_evaluated_model(cfg, args.checkpoint, evaluation.class_names).eval()
    except SetupError as e:
        raise SystemExit(f"error: {e}") from e
    result = compare(model, evaluation, args)
    if args.output:
        write_json(args.output, result)


def compare(model: nn.Module, evaluation: Evaluation, args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the model as it was trained and in half precision, print and return both."""
    names = "as it was trained", f"for_inference, {args.dtype}"
    backbone_dtype = getattr(torch, args.backbone_dtype or args.dtype)
    half = for_inference(model, getattr(torch, args.dtype), backbone_dtype=backbone_dtype)
    models = [Remembering(m) for m in (model, half)]
    ap = {name: evaluation.run(m) for name, m in zip(names, models, strict=True)}
    for name, results in ap.items():
        print(f"{name:<28}" + "".join(f"{k:>7} {v:.1f}" for k, v in results["bbox"].items()))
    changes = torch.cat(list(both_ways(models[0].found, models[1].found, args.min_score)))
    if not len(changes):
        print(f"no detection has a score over {args.min_score}")
        return {"AP": ap, "changes": None}
    changed = summary(changes)
    for name, value in changed.items():
        print(f"{name}: {value}")
    return {"AP": ap, "changes": changed}


if __name__ == "__main__":
    main()
