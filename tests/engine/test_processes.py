"""Training in two processes, which needs no GPU either."""

from __future__ import annotations

import torch
from tiny_run import Run

OPTIONS = ("dataloader.train.total_batch_size=4", "model.dropout=0.0", "train.eval_period=0")


def test_two_processes_train_like_one(tmp_path, scenes):
    run = Run(tmp_path, scenes)
    one, two = run("one", *OPTIONS), run("two", *OPTIONS, "--num-gpus", "2")
    states = [torch.load(o / "model_final.pth", weights_only=True) for o in (one, two)]
    for part in ("model", "ema_state"):
        for name, value in states[0][part].items():
            # Sums over other groups of images round differently.
            torch.testing.assert_close(states[1][part][name], value, rtol=1e-4, atol=1e-6)
    assert (two / "log.txt.rank1").is_file()
    assert (two / "contact_sheet.png").is_file()
