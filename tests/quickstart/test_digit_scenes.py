from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detrex.quickstart import DigitScenes, digit_scenes, drawing, make_digit_scenes
from detrex.quickstart.drawing import TRAIN_PHOTOS, VAL_PHOTOS, draw_scene, load_sources

SMALL = {"num_train": 12, "num_val": 6, "size": 96, "progress": False}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_digit_scenes(tmp_path_factory.mktemp("scenes") / "digits", **SMALL)


def _json(scenes, split):
    return json.loads((scenes / f"{split}.json").read_text())


def _files(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_files_and_json_agree(scenes):
    for split, count in (("train", 12), ("val", 6)):
        coco = _json(scenes, split)
        assert len(coco["images"]) == count
        assert [c["name"] for c in coco["categories"]] == list("0123456789")
        assert [c["id"] for c in coco["categories"]] == list(range(1, 11))
        names = {p.name for p in (scenes / split).iterdir()}
        assert names == {i["file_name"] for i in coco["images"]}
        for image in coco["images"]:
            with Image.open(scenes / split / image["file_name"]) as file:
                assert file.size == (image["width"], image["height"])
                assert max(file.size) == 96
        ids = [a["id"] for a in coco["annotations"]]
        assert ids == list(range(1, len(ids) + 1))


def test_boxes_lie_inside_and_hardly_overlap(scenes):
    coco = _json(scenes, "train")
    sizes = {i["id"]: (i["width"], i["height"]) for i in coco["images"]}
    by_image: dict[int, list[list[int]]] = {}
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        width, height = sizes[annotation["image_id"]]
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height
        assert annotation["area"] == w * h
        assert 0.08 * 96 <= h <= 0.37 * 96
        by_image.setdefault(annotation["image_id"], []).append([x, y, w, h])
    for boxes in by_image.values():
        for i, (x, y, w, h) in enumerate(boxes):
            for ox, oy, ow, oh in boxes[:i]:
                inter_w = max(0, min(x + w, ox + ow) - max(x, ox))
                inter_h = max(0, min(y + h, oy + oh) - max(y, oy))
                assert inter_w * inter_h <= 0.1 * min(w * h, ow * oh)


def test_no_scan_and_no_photo_is_in_both_splits():
    assert not set(TRAIN_PHOTOS) & set(VAL_PHOTOS)
    spec = DigitScenes()
    train = load_sources(spec, "train")
    val = load_sources(spec, "val")
    assert not set(train.indices) & set(val.indices)
    assert sorted([*train.indices, *val.indices]) == list(range(1797))
    for digit in range(10):  # every class keeps the same share
        share = (val.classes == digit).sum() / ((train.classes == digit).sum() * 4 / 3)
        assert share == pytest.approx(0.25, abs=0.01)


def test_annotations_name_scans_of_their_own_split_and_class(scenes):
    for split in ("train", "val"):
        sources = load_sources(DigitScenes(seed=0), split)
        class_of = dict(zip(sources.indices.tolist(), sources.classes.tolist(), strict=True))
        for annotation in _json(scenes, split)["annotations"]:
            assert class_of[annotation["sample"]] == annotation["category_id"] - 1


def test_ink_changes_the_scene_inside_the_box_and_only_there(monkeypatch):
    spec = DigitScenes(size=128)
    sources = load_sources(spec, "val")
    monkeypatch.setattr(drawing, "_COUNT_WEIGHTS", np.eye(7)[4])
    scene, digits = draw_scene(np.random.default_rng(5), sources, spec)
    assert len(digits) == 4
    monkeypatch.setattr(drawing, "_COUNT_WEIGHTS", np.eye(7)[0])
    empty, none = draw_scene(np.random.default_rng(5), sources, spec)
    assert none == []
    changed = (np.asarray(scene) != np.asarray(empty)).any(2)
    inside = np.zeros_like(changed)
    for digit in digits:
        x, y, w, h = digit["bbox"]
        inside[y : y + h, x : x + w] = True
        # Tight: ink reaches every side of the box.
        box = changed[y : y + h, x : x + w]
        assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
    assert not (changed & ~inside).any()


def test_boxes_end_where_the_ink_becomes_visible():
    sources = load_sources(DigitScenes(), "train")
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ink = drawing._render_digit(rng, sources.scans[seed], DigitScenes(size=96))
        alpha = np.asarray(ink)
        visible = 0.85 * drawing._VISIBLE - 1  # the faintest pen, rounded
        for side in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
            assert side.max() >= visible


def test_same_seed_same_bytes_other_seed_other_scenes(scenes, tmp_path):
    again = make_digit_scenes(tmp_path / "again", **SMALL)
    assert _files(again) == _files(scenes)
    other = make_digit_scenes(tmp_path / "other", **SMALL, seed=1)
    name = Path("train") / "000001.jpg"
    assert _files(other)[name] != _files(scenes)[name]


def test_a_scene_does_not_depend_on_how_many_are_made(scenes, tmp_path):
    fewer = _files(make_digit_scenes(tmp_path / "fewer", **{**SMALL, "num_train": 3}))
    many = _files(scenes)
    images = [p for p in fewer if p.suffix == ".jpg"]
    assert len(images) == 3 + 6
    assert all(fewer[p] == many[p] for p in images)


def test_complete_scenes_are_left_alone(scenes):
    before = {p: p.stat().st_mtime_ns for p in scenes.rglob("*")}
    assert make_digit_scenes(scenes, **SMALL) == scenes
    assert {p: p.stat().st_mtime_ns for p in scenes.rglob("*")} == before


def test_other_parameters_are_refused(scenes):
    with pytest.raises(FileExistsError, match="another num_train, seed"):
        make_digit_scenes(scenes, **{**SMALL, "num_train": 13}, seed=3)


def test_damaged_scenes_are_refused(tmp_path):
    tiny = {"num_train": 2, "num_val": 1, "size": 64, "progress": False}
    root = make_digit_scenes(tmp_path / "d", **tiny)
    (root / "train" / "000002.jpg").unlink()
    with pytest.raises(FileExistsError, match="1 of 2 train images"):
        make_digit_scenes(root, **tiny)


def test_a_foreign_directory_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a set of digit scenes"):
        make_digit_scenes(tmp_path, **SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    calls = []

    def fail_later(*args):
        calls.append(args)
        if len(calls) == 4:
            raise RuntimeError("disk full")
        return original(*args)

    original = digit_scenes.draw_scene
    monkeypatch.setattr(digit_scenes, "draw_scene", fail_later)
    with pytest.raises(RuntimeError, match="disk full"):
        make_digit_scenes(tmp_path / "digits", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"num_train": 0}, {"size": 10}, {"min_digit": 0.5}, {"val_fraction": 1.0}]
)
def test_senseless_parameters_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        make_digit_scenes(tmp_path / "digits", **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path, monkeypatch, capsys):
    tool = str(Path(__file__).parents[2] / "tools" / "make_digit_scenes.py")
    arguments = ["--output", str(tmp_path / "s"), "--train", "2", "--val", "1", "--size"]
    monkeypatch.setattr(sys, "argv", [tool, *arguments, "64"])
    runpy.run_path(tool, run_name="__main__")
    assert len(list((tmp_path / "s" / "train").iterdir())) == 2
    assert str(tmp_path / "s") in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [tool, *arguments, "80"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(tool, run_name="__main__")
    assert stop.value.code == 2
    assert "another size" in capsys.readouterr().err
