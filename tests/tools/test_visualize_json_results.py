"""Predictions beside the truth: which boxes are drawn on which side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import tiny_model
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from PIL import Image

from tools import visualize_json_results as tool

SCALE = tool.LEAST_SIDE / 40
WIDTH = tool.LEAST_SIDE


def result(
    image: int, box: tuple[int, ...], score: float, category: int = 7, **more: object
) -> dict:
    return {"image_id": image, "bbox": list(box), "score": score, "category_id": category, **more}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    annotations, _ = tiny_model.write_scenes(tmp_path / "data", "a.png", "b.png")

    def call(results: object, *arguments: str) -> dict[str, np.ndarray]:
        path = tmp_path / "results.json"
        path.write_text(results if isinstance(results, str) else json.dumps(results))
        options = ["--input", str(path), "--output", str(tmp_path / "out")]
        data = ["--annotations", str(annotations), "--images", str(tmp_path / "data")]
        tool.main([*options, *data, *arguments])
        files = sorted((tmp_path / "out").iterdir())
        return {f.name: np.asarray(Image.open(f)) for f in files}

    return call


def noise_of(seed: int) -> np.ndarray:
    """The picture as it is drawn on."""
    large = Image.fromarray(tiny_model.picture(seed)).resize((WIDTH, round(32 * SCALE)), 0)
    return np.asarray(large).astype(int)


def is_drawn(half: np.ndarray, seed: int, box: tuple[int, ...]) -> bool:
    """Whether the right edge of a box, in pixels of the image, is seen on a half of a sheet."""
    x, y, width, height = box
    column, rows = (
        round((x + width) * SCALE),
        slice(round((y + 2) * SCALE), round((y + height - 2) * SCALE)),
    )
    change = np.abs(
        half[rows, column - 1 : column + 1] - noise_of(seed)[rows, column - 1 : column + 1]
    )
    return float(change.max(-1).mean()) > 50


def halves(sheet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    body = sheet[tool.HEAD :].astype(int)
    return body[:, :WIDTH], body[:, WIDTH + 4 :]


def test_predictions_are_left_and_annotations_right(run):
    sure, unsure = (14, 8, 20, 14), (22, 6, 10, 20)
    sheets = run([result(1, sure, 0.9, 8), result(1, unsure, 0.49)])
    assert list(sheets) == ["a.jpg"]  # nothing is known of the other image
    sheet = sheets["a.jpg"]
    assert sheet.shape == (tool.HEAD + 32 * SCALE, 2 * WIDTH + 4, 3)
    left, right = halves(sheet)
    truth = tiny_model.BOX
    assert [is_drawn(left, 0, box) for box in (sure, unsure, truth)] == [True, False, False]
    assert [is_drawn(right, 0, box) for box in (sure, unsure, truth)] == [False, False, True]


def test_the_threshold_and_the_number_of_images(run):
    low = (22, 6, 10, 20)
    results = [result(1, low, 0.2), result(2, low, 0.2)]
    sheets = run(results, "--conf-threshold", "0.2", "--num-images", "1")
    assert list(sheets) == ["a.jpg"]
    assert is_drawn(halves(sheets["a.jpg"])[0], 0, low)
    sheets = run(results, "--num-images", "1")  # with nothing sure, and a name that is taken
    assert list(sheets) == ["a.jpg", "a_2.jpg"]
    assert not is_drawn(halves(sheets["a_2.jpg"])[0], 0, low)


def test_masks(run):
    mask = np.zeros((32, 40), np.uint8, order="F")
    mask[20:28, 4:36] = 1
    rle = mask_util.encode(mask)
    rle["counts"] = rle["counts"].decode()
    with_mask = result(2, (4, 20, 32, 8), 0.9, segmentation=rle)
    left, right = halves(run([with_mask])["b.jpg"])
    inside = slice(round(22 * SCALE), round(26 * SCALE)), slice(round(8 * SCALE), round(30 * SCALE))
    changes = [np.abs(half - noise_of(1))[inside].mean() for half in (left, right)]
    assert changes[0] > 20 and changes[1] < 20


def test_categories_are_those_of_the_data_set():
    metadata = MetadataCatalog.get("coco_2017_val")
    index = tool.class_of(metadata, "x.json")
    assert (index(1), index(90)) == (0, 79)
    with pytest.raises(ValueError, match=r"x\.json has category 12, which the data set does not"):
        index(12)
    lvis = tool.class_of(Metadata(thing_classes=["a", "b", "c"]), "x.json")
    assert (lvis(1), lvis(3)) == (0, 2)


def test_bad_images_are_named_and_the_others_done(run, tmp_path, capsys):
    (tmp_path / "data" / "a.png").write_text("no picture")
    with pytest.raises(SystemExit) as end:
        run([result(1, (1, 1, 9, 9), 0.9), result(2, (1, 1, 9, 9), 0.9)])
    assert end.value.code == 2
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["b.jpg"]
    assert "a.png cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ("{", [], "is not json"),
        ("{}", [], "is not what COCOEvaluator writes"),
        ('[{"image_id": 1}]', [], "is not what COCOEvaluator writes"),
        ([result(3, (1, 1, 2, 2), 0.9)], [], "for 1 images that the data set does not have"),
        ([result(1, (1, 1, 2, 2), 0.1, 9)], [], "has category 9, which the data set does not have"),
        ([], ["--conf-threshold", "2"], "it is between 0 and 1"),
        ([], ["--num-images", "-1"], "it is at least 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(run, capsys, results, options, message):
    with pytest.raises(SystemExit) as end:
        run(results, *options)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_data_set_has_to_be_known(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text("[]")
    for options, message in (
        (["--dataset", "mine"], "--dataset mine is not registered"),
        (["--annotations", "a.json"], "are given together or not at all"),
        (["--input", "no.json"], "--input no.json does not exist"),
    ):
        with pytest.raises(SystemExit):
            tool.main(["--input", str(path), "--output", str(tmp_path), *options])
        assert message in capsys.readouterr().err
