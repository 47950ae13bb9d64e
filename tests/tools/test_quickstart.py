"""The quickstart, shortened to a few scenes and iterations."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from PIL import Image

from detrex.quickstart import DigitScenes
from tools import quickstart


def test_it_ends_with_metrics_and_pictures(tmp_path, monkeypatch):
    few = replace(DigitScenes(), num_train=4, num_val=2, size=96)
    monkeypatch.setattr(quickstart, "DigitScenes", lambda: few)
    output, data = tmp_path / "output", tmp_path / "data"
    options = ["train.max_iter=2", "dataloader.train.total_batch_size=2", "train.log_period=1"]
    workers = ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    arguments = ["--output", str(output), "--data", str(data), *options, *workers]
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *arguments])
    quickstart.main()
    records = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert "bbox/AP50" in records[-1]
    for name in ("curves.png", "contact_sheet.png"):
        assert min(Image.open(output / name).size) > 100
    assert len(list((data / "train").iterdir())) == 4
