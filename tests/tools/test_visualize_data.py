"""Ground truth as pictures: what is drawn where, and under which name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, Instances
from PIL import Image

from detrex.utils.colors import class_color
from tools import visualize_data

SCALE = visualize_data.LEAST_SIDE / 40


class Tool:
    """Command lines for a data set of two pictures with the same name in two folders."""

    def __init__(self, folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        self.folder, self.config = folder, tiny_model.write_config(folder)
        _, self.overrides = tiny_model.write_scenes(folder, "a/x.png", "b/x.png")
        for name in ("a/x.png", "b/x.png"):
            Image.new("RGB", (40, 32), (60, 0, 0)).save(folder / name)  # plain, to see colors

    def __call__(self, source: str, *arguments: str, output: str = "out") -> dict[str, np.ndarray]:
        options = ["--config-file", str(self.config), "--source", source]
        options += ["--output-dir", str(self.folder / output)]
        visualize_data.main([*options, *self.overrides, *arguments])
        files = sorted((self.folder / output).iterdir())
        return {path.name: np.asarray(Image.open(path)) for path in files}


@pytest.fixture
def tool(tmp_path) -> Tool:
    return Tool(tmp_path)


def edge_color(picture: np.ndarray, flipped: bool = False) -> np.ndarray:
    """The color in the middle of the object's right edge (of its left one, which is mirrored)."""
    x, y, width, height = tiny_model.BOX
    column = 40 - (x + width) if flipped else x + width
    row, column = round((y + height / 2) * SCALE), round(column * SCALE)
    return picture[row - 3 : row + 4, column - 1 : column + 1].reshape(-1, 3).mean(0)


def assert_color_of(class_index: int, color: np.ndarray) -> None:
    distances = [np.abs(color / 255 - np.array(class_color(i)[:3])).max() for i in (0, 1)]
    assert np.argmin(distances) == class_index and min(distances) < 0.35, distances


def test_annotations_are_drawn_in_the_colors_of_their_classes(tool):
    drawn = tool("annotation")
    assert list(drawn) == ["x.jpg", "x_2.jpg"]
    for picture, class_index in zip(drawn.values(), (1, 0), strict=True):
        assert picture.shape == (32 * SCALE, 40 * SCALE, 3)
        assert_color_of(class_index, edge_color(picture))


def test_the_loader_s_images_are_augmented_and_their_targets_with_them(tool, tmp_path):
    options = ["--num-images", "3", "train.seed=5", "dataloader.train.total_batch_size=2"]
    drawn = tool("dataloader", *options)
    assert list(drawn) == ["x.jpg", "x_2.jpg", "x_3.jpg"]
    for picture in drawn.values():
        colors = [edge_color(picture, flipped=True), edge_color(picture)]
        near = [
            min(np.abs(c / 255 - np.array(class_color(i)[:3])).max() for i in (0, 1))
            for c in colors
        ]
        assert near[0] < 0.35 < near[1]  # the box is where the mirrored object is
    again = tool("dataloader", *options, output="again")
    for name, picture in drawn.items():
        np.testing.assert_array_equal(picture, again[name])
    bgr = tool("dataloader", *options, "dataloader.train.mapper.img_format=BGR", output="bgr")
    for name, picture in drawn.items():
        np.testing.assert_array_equal(picture, bgr[name])


def test_masks_of_targets_are_drawn():
    targets = Instances((32, 40))
    targets.gt_boxes, targets.gt_classes = (
        Boxes(torch.tensor([[4.0, 6, 24, 18]])),
        torch.tensor([0]),
    )
    image = np.zeros((32, 40, 3), np.uint8)
    plain = visualize_data.draw_targets(image, targets, Metadata())
    mask = torch.zeros(1, 32, 40, dtype=torch.bool)
    mask[:, 8:16, 8:20] = True
    targets.gt_masks = BitMasks(mask)
    masked = visualize_data.draw_targets(image, targets, Metadata())
    changed = np.abs(masked.astype(int) - plain).max(-1) > 30
    inside = changed[round(9 * SCALE) : round(15 * SCALE), round(9 * SCALE) : round(19 * SCALE)]
    assert inside.mean() > 0.9 and not changed[round(25 * SCALE) :].any()


def test_the_number_of_pictures(tool):
    assert len(tool("annotation", "--num-images", "1", output="one")) == 1
    assert len(tool("annotation", "--num-images", "0", "--split", "test", output="all")) == 2


def test_the_folder_of_the_images_may_be_the_output(tool):
    before = (tool.folder / "a" / "x.png").read_bytes()
    (tool.folder / "a" / "x.jpg").write_text("mine")
    tool.overrides.append("--num-images=1")
    visualize_data.main(
        ["--config-file", str(tool.config), "--source", "annotation", *tool.overrides]
        + ["--output-dir", str(tool.folder / "a")]
    )
    assert (tool.folder / "a" / "x.png").read_bytes() == before
    assert (tool.folder / "a" / "x.jpg").read_text() == "mine"
    assert (tool.folder / "a" / "x_2.jpg").is_file()


def test_an_image_that_cannot_be_read_is_named_and_the_others_done(tool, capsys):
    (tool.folder / "a" / "x.png").write_text("no picture")
    with pytest.raises(SystemExit) as end:
        tool("annotation")
    assert end.value.code == 2
    assert len(list((tool.folder / "out").iterdir())) == 1
    captured = capsys.readouterr()
    assert "a/x.png cannot be read" in captured.err and "1 of 2 pictures" in captured.out


def test_windows_instead_of_files(tool, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(
        visualize_data.ImageShow, "show", lambda image, title: shown.append(title) or True
    )
    options = ["--config-file", str(tool.config), "--source", "annotation", "--show"]
    visualize_data.main([*options, *tool.overrides])
    assert [Path(title).parent.name for title in shown] == ["a", "b"]
    monkeypatch.setattr(visualize_data.ImageShow, "show", lambda image, title: False)
    with pytest.raises(SystemExit):
        visualize_data.main([*options, *tool.overrides])
    assert "leave --show out to write files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--source", "dataloader", "--num-images", "0"],
            "at least 1, since the loader is endless",
        ),
        (["--source", "annotation", "--num-images", "-1"], "at least 0, which is all"),
        (["--source", "dataloader", "--split", "test"], "--split test has annotations alone"),
        (["--source", "annotation"], "dataloader.train.dataset.image_root=..."),
        (["--source", "annotation", "train.sed=1"], "Did you mean train.seed"),
    ],
)
def test_what_is_wrong_is_one_sentence(tool, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        visualize_data.main(["--config-file", str(tool.config), *options])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
