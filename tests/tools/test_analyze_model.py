"""Operations, activations, parameters and structure, on noise and on a data set."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_model

from detrex.layers.ms_deform_attn import use_implementation
from tools import analyze_model

DEFORMABLE = [
    *("--config-file", "deformable_detr/models/deformable_detr_r50.py", "--size", "64", "96"),
    *("model.backbone.stages.depth=18", "model.embed_dim=32", "model.num_classes=3"),
    *(f"model.transformer.{part}.num_layers=1" for part in ("encoder", "decoder")),
]


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_config_of_detrex_without_data(capsys):
    with use_implementation("pytorch"):  # nothing has to be compiled first
        analyze_model.main(
            [*DEFORMABLE, "--tasks", "flop", "activation", "parameter", "--depth", "1"]
        )
    out = lines(capsys)
    counted = next(line for line in out if line.startswith("Counted on"))
    assert "noise of 64 x 96 pixels, since there is no data set" in counted
    table = {line.split()[0]: line.split()[1:] for line in out if line.startswith(("DETR ", "  "))}
    whole = float(table["DETR"][1])
    parts = sum(float(table[part][1]) for part in ("backbone", "neck", "transformer"))
    assert whole == pytest.approx(parts, abs=0.003) and whole > 0
    assert f"GFLOPs: {whole:.2f}" in out
    assert any(line.startswith("Million activations: ") for line in out)
    parameters = next(line for line in out if line.startswith("| model"))
    assert int(table["DETR"][0].replace(",", "")) / 1e6 == pytest.approx(
        float(parameters.split("|")[2].strip().removesuffix("M")), abs=0.1
    )


def test_structure(tmp_path, capsys):
    config = str(tiny_model.write_config(tmp_path))
    analyze_model.main(["--config-file", config, "--tasks", "structure"])
    out = "\n".join(lines(capsys))
    assert "TinyDetector(" in out and "(label): Linear(in_features=8" in out
    assert "GFLOPs" not in out


def test_the_average_is_over_the_test_set(tmp_path, capsys, monkeypatch):
    config = tiny_model.write_config(tmp_path)
    _, overrides = tiny_model.write_scenes(tmp_path, "a.png", "b.png", "c.png")
    calls = []
    count = analyze_model.count_modules
    monkeypatch.setattr(analyze_model, "count_modules", lambda *a: calls.append(a) or count(*a))
    options = ["--config-file", str(config), "--tasks", "flop", *overrides]
    analyze_model.main(options)
    out = lines(capsys)
    assert "Counted on 3 images of the test set." in out
    assert any(line == "GFLOPs: 0.00 ± 0.00" for line in out)
    assert len(calls) == 1  # all have one size
    analyze_model.main([*options, "--num-inputs", "2"])
    assert "Counted on 2 images of the test set." in lines(capsys)
    analyze_model.main([*options, "--use-fixed-input-size", "--size", "8", "8"])
    assert "Counted on noise of 8 x 8 pixels." in lines(capsys)


def test_counts_are_averaged():
    counts = [
        analyze_model.ModuleCounts({"": 1.0, "a": 1.0}, {"": 4}, {"mm": 1.0}),
        analyze_model.ModuleCounts({"": 3.0}, {"": 8}, {"mm": 2.0, "conv": 1.0}),
    ]
    mean = analyze_model.average(counts)
    assert mean.flops == {"": 2.0, "a": 0.5} and mean.activations == {"": 6}
    assert mean.operators == {"mm": 1.5, "conv": 0.5}
    assert analyze_model.spread([1.0, 3.0]) == "2.00 ± 1.41"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-inputs", "0"], "--num-inputs 0: it is at least 1"),
        (["--tasks", "flops"], "--tasks flops: tasks are flop, activation"),
        (["--depth", "-1"], "--depth -1"),
        (["--size", "0", "9"], "sides are at least one pixel"),
        (["model.num_clases=3"], "Did you mean model.num_classes"),
    ],
)
def test_what_is_wrong_is_one_sentence(capsys, options, message):
    with pytest.raises(SystemExit) as end:
        analyze_model.main([*DEFORMABLE, "--tasks", "flop", *options])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, capsys):
    config = tiny_model.write_config(tmp_path)
    _, overrides = tiny_model.write_scenes(tmp_path, "a.png")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(SystemExit) as end:
        analyze_model.main(["--config-file", str(config), "--tasks", "flop", *overrides])
    assert end.value.code == 2
    assert "a.png cannot be read" in capsys.readouterr().err
