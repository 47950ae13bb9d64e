"""``demo/demo.py`` from end to end on a tiny model; OpenCV is a stand-in."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tiny_model
import torch
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from PIL import Image
from tiny_detector import TinyDetector

from detrex.engine.predict import Predictor

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture
def demo(monkeypatch) -> ModuleType:
    """The script as Python runs it, with its own folder to import from."""
    monkeypatch.syspath_prepend(DEMO)
    spec = importlib.util.spec_from_file_location("demo_script", DEMO / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("predictors", None)


@pytest.fixture
def run(demo, tmp_path) -> Callable[..., None]:
    config = tiny_model.write_config(tmp_path)
    weights = tiny_model.write_weights(tmp_path, classes={"names": ["even", "odd"]})

    def call(*arguments: object) -> None:
        options = ["--config-file", str(config), *map(str, arguments)]
        demo.main([*options, "--opts", f"train.init_checkpoint={weights}", "train.device=cpu"])

    return call


def sentence(capsys, run, *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "it/s" not in x and x.strip()]
    assert line.startswith("error: ")
    return line


def differing(one: np.ndarray, other: np.ndarray) -> int:
    return int((one.astype(int) - other.astype(int)).any(-1).sum())


def test_pictures_of_a_folder_go_into_another(run, tmp_path, capsys):
    tiny_model.write_pictures(tmp_path / "in", "a.png", "b.png")
    run("--input", tmp_path / "in", "--output", tmp_path / "out" / "deep")
    assert "2 of 2 pictures are in" in capsys.readouterr().out
    for seed, name in enumerate(("a.png", "b.png")):
        drawn = np.asarray(Image.open(tmp_path / "out" / "deep" / name))
        assert drawn.shape == (32, 40, 3)
        assert differing(drawn, tiny_model.picture(seed)) > 0
    run("--input", tmp_path / "in", "--output", tmp_path / "plain", "--confidence-threshold", 1)
    for seed, name in enumerate(("a.png", "b.png")):
        drawn = np.asarray(Image.open(tmp_path / "plain" / name))
        assert differing(drawn, tiny_model.picture(seed)) == 0


def test_nothing_is_overwritten_and_a_file_can_be_named(run, tmp_path):
    (path,) = tiny_model.write_pictures(tmp_path / "in", "a.png")
    for _ in range(2):
        run("--input", tmp_path / "in" / "*.png", "--output", tmp_path / "in")
        np.testing.assert_array_equal(np.asarray(Image.open(path)), tiny_model.picture(0))
        path.with_name("a_2.png").rename(path.with_name("kept.txt"))
    run("--input", path, "--output", tmp_path / "new" / "named.jpg")
    assert Image.open(tmp_path / "new" / "named.jpg").format == "JPEG"


def test_bad_pictures_are_named_and_the_others_done(run, tmp_path, capsys):
    good, bad = tiny_model.write_pictures(tmp_path / "in", "good.png", "bad.png")
    bad.write_text("no picture")
    line = sentence(capsys, run, "--input", bad, good, "--output", tmp_path / "out")
    assert str(bad) in line and "damaged, or no picture" in line
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_what_is_wrong_is_one_sentence(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    a, b = tiny_model.write_pictures(tmp_path / "in", "a.png", "b.png")
    for arguments, message in (
        (["--input", tmp_path / "*.gif"], "has no pictures"),
        (["--input", a, "--confidence-threshold", "1.5"], "1.5: it is between 0 and 1."),
        (["--input", a, "--min_size_test", "0"], "--min_size_test 0: it is at least 1."),
        (["--input", a, b, "--output", tmp_path / "x.png"], "is one file for 2 pictures"),
        (["--video-input", "v.mp4"], "videos and webcams need OpenCV: pip install opencv-python."),
        (["--webcam"], "pip install opencv-python"),
    ):
        assert message in sentence(capsys, run, *arguments)
    assert "a.PNGX cannot be written" in sentence(
        capsys, run, "--input", a, "--output", tmp_path / "a.PNGX"
    )


def test_classes_are_named_by_the_checkpoint_by_a_data_set_or_by_number(demo, tmp_path):
    config, coco = tiny_model.write_config(tmp_path), "coco_2017_val"

    def names(extras: dict, *options: str) -> list[str]:
        weights = tiny_model.write_weights(tmp_path, **extras)
        arguments = ["--config-file", str(config), "--input", "a.png", *options]
        arguments += ["--opts", f"train.init_checkpoint={weights}"]
        return demo.build(demo.parser().parse_args(arguments)).metadata.thing_classes

    assert names({"classes": {"names": ["even", "odd"]}}) == ["even", "odd"]
    assert names({}) == ["0", "1"]
    assert names({}, "--metadata_dataset", coco)[:2] == ["person", "bicycle"]


class Video:
    """As much of ``cv2.VideoCapture`` as is used, with frames in memory."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames = iter(frames)

    def read(self) -> tuple[bool, np.ndarray | None]:
        frame = next(self.frames, None)
        return frame is not None, frame


def stand_in(frames: list[np.ndarray], opens: bool = True) -> ModuleType:
    cv2 = ModuleType("cv2")
    cv2.error = type("error", (Exception,), {})
    cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT = "fps", "count"
    cv2.VideoWriter_fourcc = lambda *letters: "".join(letters)
    cv2.written = []

    class Capture(Video):
        def __init__(self, source: object) -> None:
            super().__init__(frames)
            self.isOpened = lambda: opens
            self.get = {"fps": 12.0, "count": len(frames)}.__getitem__
            self.release = lambda: None

    def writer(path: str, *options: object) -> SimpleNamespace:
        cv2.opened = (Path(path).name, *options)
        return SimpleNamespace(
            write=cv2.written.append, isOpened=lambda: True, release=lambda: None
        )

    cv2.VideoCapture, cv2.VideoWriter = Capture, writer
    return cv2


def test_a_video_becomes_a_video(run, tmp_path, monkeypatch, capsys):
    frames = [tiny_model.picture(seed) for seed in range(3)]
    cv2 = stand_in(frames)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    (tmp_path / "in.mp4").touch()
    run("--video-input", tmp_path / "in.mp4", "--output", tmp_path)  # beside itself
    assert cv2.opened == ("in_2.mp4", "mp4v", 12.0, (40, 32))
    assert len(cv2.written) == 3
    for before, after in zip(frames, cv2.written, strict=True):
        assert 0 < differing(before, after) < 32 * 40
    assert "3 frames are in" in capsys.readouterr().out


def test_what_is_wrong_with_a_video_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "in.mp4"
    monkeypatch.setitem(sys.modules, "cv2", stand_in([]))
    assert "in.mp4 does not exist" in sentence(capsys, run, "--video-input", path)
    path.touch()
    arguments = ["--video-input", path, "--output", tmp_path / "o.mp4"]
    assert "in.mp4 has no frames" in sentence(capsys, run, *arguments)
    arguments[-1] = tmp_path / "o.xyz"
    assert "a video ends with .mp4" in sentence(capsys, run, *arguments)
    monkeypatch.setitem(sys.modules, "cv2", stand_in([], opens=False))
    assert "is no video" in sentence(capsys, run, "--video-input", path)
    assert "there is no webcam" in sentence(capsys, run, "--webcam")


def test_upstreams_names_of_predictors(demo):
    torch.manual_seed(0)
    model = TinyDetector(2)
    classes = Metadata(thing_classes=["even", "odd"])
    found = demo.VisualizationDemo(model, 16, 20, "BGR", classes)
    bgr = tiny_model.picture(0)
    predictions, drawn = found.run_on_image(bgr, threshold=0.0)
    expected = Predictor(model, [T.ResizeShortestEdge(16, 20)], "BGR")(bgr[:, :, ::-1])
    scores = predictions["instances"].scores
    torch.testing.assert_close(scores, expected.scores, rtol=0, atol=0)
    assert differing(drawn.get_image(), bgr[:, :, ::-1]) < 32 * 40  # what is drawn on is RGB


def test_frames_keep_their_order_on_several_devices(demo, monkeypatch):
    model = TinyDetector(2)
    parallel = demo.VisualizationDemo(model, 16, 20, metadata_dataset=Metadata(), parallel=True)
    serial = demo.VisualizationDemo(model, 16, 20, metadata_dataset=Metadata())
    monkeypatch.setattr(
        parallel, "_predictors", lambda: [parallel.predictor, serial.predictor, serial.predictor]
    )
    frames = [tiny_model.picture(seed) for seed in range(7)]
    one, other = (list(d.run_on_video(Video(frames), 0.0)) for d in (parallel, serial))
    np.testing.assert_array_equal(one, other)
