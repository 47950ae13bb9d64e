"""What every model computes for a seed, to the bit: run before and after a change of the core.

    python tests/fingerprint.py --output before.json    # at the commit before
    python tests/fingerprint.py --compare before.json   # at the commit after

Every kind of model is built small from its recipe and trained for some steps, with dropout, on two
images of different sizes. Compared are the initial weights, all losses of all steps, the gradients
of the last step, the weights after it, and the detections, all to the last bit, so both runs must
be on one machine. ``--threads`` defaults to one, since sums are split among threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import zoo
from detectron2.config import instantiate
from torch import Tensor, nn

from detrex.config import get_config


def digest(tensors: Iterable[tuple[str, Tensor | None]]) -> str:
    """A hash of names, shapes and bits."""
    sha = hashlib.sha256()
    for name, tensor in tensors:
        sha.update(name.encode())
        if tensor is not None:
            sha.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            sha.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def small_model(recipe: str) -> nn.Module:
    """With the dropout that :func:`zoo.shrink` takes out, so that its random numbers count too."""
    config = zoo.shrink(get_config(recipe).model)
    for part in (config.transformer.encoder, config.transformer.decoder):
        part.layer.dropout = 0.1
    config.transformer.decoder.num_layers = 3
    torch.manual_seed(0)
    return instantiate(config)


def fingerprint(recipe: str, steps: int) -> dict:
    """Losses as exact hexadecimal numbers, and hashes of everything else."""
    model = small_model(recipe)
    found = {"initial": digest(model.state_dict().items()), "losses": []}
    batch = [
        zoo.image(96, 128, [(8, 8, 60, 70), (50, 20, 120, 90)], [0, 2]),
        zoo.image(128, 80, [(5, 40, 70, 120)], [1], seed=1),
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.train()
    for _ in range(steps):
        losses = model(batch)
        found["losses"].append({name: value.item().hex() for name, value in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    found["gradients"] = digest((name, p.grad) for name, p in model.named_parameters())
    found["trained"] = digest(model.state_dict().items())
    model.eval()
    with torch.no_grad():
        results = [x["instances"] for x in model(batch)]
    fields = ("scores", "pred_classes")
    parts = [(f, x.get(f)) for x in results for f in fields]
    found["detections"] = digest([*parts, *(("boxes", x.pred_boxes.tensor) for x in results)])
    return found


def differences(before: dict, after: dict) -> list[str]:
    """Where two fingerprints of one model first differ."""
    found = [f"{key} differ" for key in before if key != "losses" and before[key] != after[key]]
    for step, (one, other) in enumerate(zip(before["losses"], after["losses"], strict=True)):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        if names:
            return [*found, f"losses of step {step}: {', '.join(names[:4])}"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="file to write the fingerprints to")
    parser.add_argument("--compare", type=Path, help="file of an earlier run to compare with")
    parser.add_argument("--steps", type=int, default=20, help="training steps of each model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("recipes", nargs="*", help="default: one of each kind of model")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = json.loads(args.compare.read_text()) if args.compare else {}
    after, same, compared = {}, 0, 0
    for recipe in args.recipes or list(before) or zoo.MODELS:
        start = time.perf_counter()
        after[recipe] = fingerprint(recipe, args.steps)
        verdict = "not compared"
        if recipe in before:
            found = differences(before[recipe], after[recipe])
            compared, same = compared + 1, same + (not found)
            verdict = "; ".join(found) or "same"
        print(f"{time.perf_counter() - start:6.1f} s  {recipe}: {verdict}", flush=True)
        if args.output:
            args.output.write_text(json.dumps(after, indent=1))
    if before:
        print(f"{same} of {compared} models are the same to the bit")
    raise SystemExit(same < compared)


if __name__ == "__main__":
    main()
