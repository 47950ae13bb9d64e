"""What half precision does to the detections of a trained model: AP, and how far boxes move.

    python benchmarks/half_precision.py --config-file F --checkpoint model_final.pth key=value ...

Evaluates the model as it was trained and as `for_inference` makes it ready in `--dtype`, on the
test set of the config. Each detection with a score above `--min-score` is looked for among the
other's: of its class, the nearest box. A distance is that of the edge that moved most, in pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write_json
from detectron2.structures import Instances
from torch import Tensor, nn

from detrex.engine.build import build_evaluated_model
from detrex.engine.config import load_config
from detrex.engine.evaluation import Evaluation
from detrex.modeling.inference import for_inference


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


def distances(of: Instances, among: Instances, min_score: float) -> Tensor:
    """Of each sure detection, in pixels to the nearest of its class; infinite without one."""
    sure = of[of.scores > min_score]
    if not len(among):
        return torch.full((len(sure),), float("inf"))
    apart = torch.cdist(sure.pred_boxes.tensor, among.pred_boxes.tensor, p=float("inf"))
    others = sure.pred_classes[:, None] != among.pred_classes
    return apart.masked_fill(others, float("inf")).min(1).values


def both_ways(a: list[Instances], b: list[Instances], min_score: float) -> Iterator[Tensor]:
    for of, among in zip(a, b, strict=True):
        yield distances(of, among, min_score)
        yield distances(among, of, min_score)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config-file", required=True, help="a LazyConfig file")
    parser.add_argument("--checkpoint", required=True, help="trained weights of its model")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--min-score", type=float, default=0.3, help="of detections that count")
    parser.add_argument("--output", type=Path, help="json file for the results")
    parser.add_argument("overrides", nargs="*", help="changes to the config: key=value")
    args = parser.parse_args()
    cfg = load_config(args.config_file, args.overrides, eval_only=True)
    evaluation = Evaluation(cfg)
    model = build_evaluated_model(cfg, args.checkpoint, evaluation.class_names).eval()
    names = "as it was trained", f"for_inference, {args.dtype}"
    models = [Remembering(m) for m in (model, for_inference(model, getattr(torch, args.dtype)))]
    ap = {name: evaluation.run(m) for name, m in zip(names, models, strict=True)}
    for name, results in ap.items():
        print(f"{name:<28}" + "".join(f"{k:>7} {v:.1f}" for k, v in results["bbox"].items()))
    moved = torch.cat(list(both_ways(models[0].found, models[1].found, args.min_score))).numpy()
    quantiles = {q: float(np.quantile(moved, q, method="higher")) for q in (0.5, 0.9, 0.99, 1.0)}
    within = float((moved <= 1).mean())
    print(
        f"{len(moved)} detections over {args.min_score}: {within:.2%} within 1 pixel; "
        + ", ".join(f"{q:.0%} within {value:.3f}" for q, value in quantiles.items())
    )
    if args.output:
        result = {"AP": ap, "within 1 pixel": within, "pixels by quantile": quantiles}
        write_json(args.output, result)


if __name__ == "__main__":
    main()
