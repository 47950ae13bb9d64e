"""The tool as it is called, on models that are small or no detection transformers at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from detrex.layers.ms_deform_attn import implementation, use_implementation
from tools import benchmark

DEFORMABLE = "deformable_detr/models/deformable_detr_r50.py"
SMALLER = [
    "model.backbone.stages.depth=18",
    "model.embed_dim=32",
    "model.transformer.encoder.num_layers=1",
    "model.transformer.decoder.num_layers=1",
]
STAGES = ["backbone", "neck", "position_embedding", "encoder", "queries", "decoder"]

TINY = """
from detectron2.config import LazyCall as L
from detrex.config import get_config
from detrex.data import coco_dataset
from tiny_detector import TinyDetector

model = L(TinyDetector)(num_classes=2)
optimizer = get_config("common/optim.py").AdamW
dataloader = get_config("common/data/custom.py").dataloader
dataloader.train.num_workers = 0
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return str(path)


def run(config: str, *arguments: str, output: Path) -> dict:
    options = ["--size", "64", "96", "--repeats", "2", "--device", "cpu"]
    benchmark.main(["--config-file", config, *options, "--output", str(output), *arguments])
    return json.loads(output.read_text())


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        benchmark.main(["--config-file", *arguments])
    capsys.readouterr()
    assert "\n" not in str(end.value.code)
    return str(end.value.code)


def test_a_detr_is_compiled_between_images_and_detections(tmp_path, monkeypatch):
    seen: list[str] = []

    def compile(function):
        def called(*args):
            seen.append(getattr(function, "__name__", type(function).__name__))
            return function(*args)

        return called

    monkeypatch.setattr("torch.compile", compile)
    run(DEFORMABLE, *SMALLER, "--compile", "--for-inference", output=tmp_path / "result.json")
    assert set(seen) == {"predict"}


def test_another_model_is_compiled_as_a_whole(tiny, tmp_path, monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr("torch.compile", lambda model: seen.append(type(model).__name__) or model)
    run(tiny, "--compile", output=tmp_path / "result.json")
    assert seen == ["TinyDetector"]


def test_inference_of_a_config_of_detrex(tmp_path, capsys):
    result = run(DEFORMABLE, *SMALLER, "--batch-size", "2", output=tmp_path / "result.json")
    stages = {stage["name"]: stage for stage in result["stages"]}
    assert [name for name in stages if name != "groups"] == [
        *STAGES,
        "postprocess",
        "heads",
        "rest",
    ]
    assert all(stage["forward"] > 0 and stage["backward"] == 0 for stage in stages.values())
    # in one layer 96 + 24 + 6 + 2 tokens of 32 channels, 16 points for each of 8 heads of 4
    weights = 32 * (2 * 32 + 8 * 16 * 3 + 2 * 1024)
    assert stages["encoder"]["flops"] == 2 * 128 * (2 * weights + 8 * (8 * 16) * 4)
    assert result["gflop"] == pytest.approx(sum(s["flops"] for s in stages.values()) / 1e9)
    assert result["images_per_second"] == pytest.approx(2 / result["seconds"]["median"])
    assert result["deformable_attention"] == implementation("cpu").name
    text = capsys.readouterr().out
    for part in ("throughput", "images/s", "GFLOP/s", "encoder", "of limit", "2 x 64 x 96"):
        assert part in text


def test_training_of_a_config_of_detrex(tmp_path, capsys):
    optimizer = tmp_path / "with_optimizer.py"
    optimizer.write_text(
        "from detrex.config import get_config\n"
        f"model = get_config({DEFORMABLE!r}).model\n"
        'optimizer = get_config("common/optim.py").AdamW\n'
    )
    arguments = ["--task", "training", *SMALLER, "train.clip_grad.enabled=true"]
    with use_implementation("pytorch"):  # nothing has to be compiled first
        result = run(str(optimizer), *arguments, output=tmp_path / "result.json")
    assert result["deformable_attention"] == "pytorch"
    stages = {stage["name"]: stage for stage in result["stages"]}
    assert [name for name in stages if name != "groups"] == [
        *STAGES,
        "criterion",
        "heads",
        "optimizer",
        "rest",
    ]
    for name in ("backbone", "neck", "encoder", "decoder", "criterion", "heads"):
        assert stages[name]["backward"] > 0
    assert stages["optimizer"]["backward"] == 0
    assert "backward" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["inference", "training"])
def test_any_other_model(tiny, tmp_path, task):
    result = run(tiny, "--task", task, output=tmp_path / "result.json")
    assert {"body", "box", "label"} <= {stage["name"] for stage in result["stages"]}
    assert result["parameters"] == (3 + 1) * 8 + (8 + 1) * (4 + 2)


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Overrides that name a data set of three images."""
    images, annotations = [], []
    for i in range(3):
        Image.new("RGB", (40, 32), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 32, "width": 40})
        box = {"bbox": [4, 5, 20, 10], "area": 200, "iscrowd": 0}
        annotations.append({"id": i, "image_id": i, "category_id": 1, **box})
    content = {"images": images, "annotations": annotations}
    path = tmp_path / "scenes.json"
    path.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "box"}]}))
    return [
        f"dataloader.train.dataset.json_file={path}",
        f"dataloader.train.dataset.image_root={tmp_path}",
    ]


def test_data(tiny, data, tmp_path, capsys):
    arguments = ["--task", "data", "--batch-size", "3", *data]
    result = run(tiny, *arguments, output=tmp_path / "result.json")
    assert result["seconds"]["runs"] == result["mapper_seconds"]["runs"] == 2
    assert result["stages"] is None
    assert "one batch" in capsys.readouterr().out


def test_the_parts_of_a_loader(tiny, data, tmp_path, capsys):
    result = run(tiny, "--task", "data_advanced", *data, output=tmp_path / "result.json")
    assert set(result) == {"dataset", "mapper", "workers", "IPC", "distributed"}
    text = capsys.readouterr().out
    assert "mapper: " in text and "it/s" in text


@pytest.mark.parametrize(("name", "task"), [("eval", "inference"), ("train", "training")])
def test_detectron2s_names_of_tasks(tiny, tmp_path, name, task):
    result = run(tiny, "--task", name, "--num-gpus", "1", output=tmp_path / "result.json")
    assert result["task"] == task


def test_processes_that_cannot_be_meant_are_known_at_once(tiny, capsys):
    text = error(capsys, tiny, "--task", "eval", "--num-gpus", "2")
    assert "inference is measured on one GPU" in text
    assert "--dist-url tcp://" in error(capsys, tiny, "--task", "train", "--num-machines", "2")


def test_what_is_wrong_is_said_in_one_sentence(tiny, tmp_path, capsys):
    assert error(capsys, "no.py").startswith("error: config file 'no.py' does not exist")
    assert "Did you mean model.num_classes?" in error(capsys, tiny, "model.num_clases=3")
    assert "--repeats 1: it has to be at least 2" in error(capsys, tiny, "--repeats", "1")
    assert "--size 0 5: sides are" in error(capsys, tiny, "--size", "0", "5")
    text = error(capsys, tiny, "--task", "training", "--dtype", "bfloat16")
    assert "train.amp.enabled=true" in text
    text = error(capsys, "deformable_detr/models/deformable_detr_r50.py", "--task", "training")
    assert "does not describe a training step: it has no optimizer" in text
    text = error(capsys, tiny, "--task", "data")
    for key in ("json_file", "image_root"):
        assert f"dataloader.train.dataset.{key}=..." in text


def test_a_result_that_could_not_be_written_is_known_at_the_start(tiny, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--config-file", tiny, "--output", str(tmp_path / "no" / "x.json")])
    assert "x.json does not exist" in capsys.readouterr().err


def test_help_shows_tasks_and_examples(capsys):
    with pytest.raises(SystemExit) as end:
        benchmark.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for part in ("--task", "inference,training,data", "--size H W", "train.amp.enabled=true"):
        assert part in text
