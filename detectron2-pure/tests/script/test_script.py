"""A public training script and config: train, resume with mixed precision, evaluate."""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from detectron2.engine import default_argument_parser
from PIL import Image

HERE = Path(__file__).parent


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with four images of one object each."""
    images, annotations = [], []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 30, "width": 40})
        corners = [5, 5, 25, 5, 25, 15, 5, 15]
        annotations.append(
            {"id": number + 1, "image_id": number, "category_id": 3, "iscrowd": 0, "area": 200}
            | {"bbox": [5, 5, 20, 10], "segmentation": [corners]}
        )
    categories = [{"id": 3, "name": "thing"}]
    (tmp_path / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    monkeypatch.setenv("TOY_ROOT", str(tmp_path))
    monkeypatch.setattr(logging.getLogger("detectron2"), "handlers", [])
    return tmp_path


def run(*arguments):
    spec = importlib.util.spec_from_file_location("lazy_train_net", HERE / "lazy_train_net.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    config = ("--config-file", str(HERE / "lazy_config.py"))
    parser = default_argument_parser()
    return script.main(parser.parse_args([*config, *arguments, "train.device=cpu"]))


def metrics(output):
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def test_train_resume_evaluate(root):
    output = root / "lazy_config"
    run("train.seed=1", "dataloader.train.mapper.augmentations.0.short_edge_length=32")
    losses, results = metrics(output)
    assert losses["iteration"] == 1 and losses["total_loss"] > 0
    # That of the largest group, the backbone.
    assert losses["lr"] == pytest.approx(1e-5)
    assert set(results) >= {"bbox/AP", "segm/AP50"}

    run("--resume", "train.max_iter=4", "train.amp.enabled=true")
    *_, losses, results = metrics(output)
    assert losses["iteration"] == 3
    names = {path.name for path in output.iterdir()}
    assert names >= {"model_0000001.pth", "model_0000003.pth", "model_final.pth", "config.yaml"}

    again = run("--eval-only", f"train.init_checkpoint={output}/model_final.pth")
    assert {f"{task}/{k}": v for task in again for k, v in again[task].items()} == pytest.approx(
        {k: v for k, v in results.items() if "/" in k}, nan_ok=True
    )
