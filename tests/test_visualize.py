from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from detrex import visualize
from detrex.visualize import Picture, contact_sheet, draw_detections, pictures_of, plot_curves


def _picture(**changes):
    fields = {
        "image": np.full((80, 120, 3), 40, np.uint8),
        "boxes": np.array([[30.0, 30.0, 90.0, 60.0]]),
        "classes": np.array([0]),
        "scores": np.array([0.8]),
    }
    return Picture(**{**fields, **changes})


def test_a_box_is_drawn_where_it_is():
    drawn = draw_detections(_picture(), scale=2.0)
    assert drawn.shape == (160, 240, 3) and drawn.dtype == np.uint8
    changed = np.abs(drawn.astype(int) - 40).max(2) > 60
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    # Lines are 1.6 points at 100 dots per inch, about 2 pixels; the label sits above the box.
    assert abs(columns[0] - 60) <= 2 and abs(columns[-1] - 180) <= 2
    assert abs(rows[-1] - 120) <= 2
    assert not changed[70:110, 70:170].any()  # nothing but the outline


def test_scores_below_the_threshold_are_not_drawn():
    drawn = draw_detections(_picture(scores=np.array([0.49])), score_threshold=0.5)
    assert (drawn == 40).all()


def test_annotations_are_drawn_in_another_line():
    truth = {"true_boxes": np.array([[30.0, 30.0, 90.0, 60.0]])}
    nothing = {"boxes": np.zeros((0, 4)), "classes": np.zeros(0), "scores": np.zeros(0)}
    dashed = draw_detections(_picture(**nothing, **truth), scale=2.0)
    bottom = dashed[119:122, 60:180].max(axis=(0, 2)) > 100
    assert 0.3 < bottom.mean() < 0.8  # dashes and gaps
    solid = draw_detections(_picture(), scale=2.0)
    assert (solid[119:122, 60:180].max(axis=(0, 2)) > 100).all()


def test_annotations_are_missed_without_an_overlapping_box_of_their_class():
    picture = _picture(
        boxes=np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]),
        classes=np.array([0, 0, 1]),
        scores=np.array([0.9, 0.9, 0.9]),
        true_classes=np.array([0, 1, 1, 0]),
    )
    # IoU 1; IoU 1 but of class 0; IoU 5/15; IoU 1/2 with a box of class 0.
    true_boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [45, 0, 55, 10], [0, 0, 10, 5]])
    assert visualize._missed(picture, true_boxes, [0, 1, 2]).tolist() == [False, True, True, False]
    assert visualize._missed(picture, true_boxes, [1, 2]).tolist() == [True] * 4
    assert visualize._missed(picture, true_boxes, []).tolist() == [True] * 4


def test_the_picture_is_not_changed():
    picture = _picture(true_boxes=np.array([[1.0, 2, 3, 4]]), true_classes=np.array([1]))
    before = {k: np.copy(v) for k, v in vars(picture).items()}
    draw_detections(picture, ["a", "b"])
    for key, value in before.items():
        np.testing.assert_array_equal(vars(picture)[key], value)


def test_names_and_indices_label_classes():
    assert visualize._class_name(1, ["cat", "dog"]) == "dog"
    assert visualize._class_name(2, ["cat", "dog"]) == "2"
    assert visualize._class_name(3, None) == "3"


@pytest.mark.parametrize("count", [1, 5])
def test_contact_sheet(tmp_path, count):
    out = contact_sheet(
        [_picture(true_boxes=np.zeros((0, 4)))] * count, tmp_path / "new" / "s.png", title="t"
    )
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    # Up to two rows of four cells as wide as 2.6 inches and shaped like the pictures, at 150
    # dots per inch, below 0.6 inches of header.
    columns, rows = min(count, 4), -(-count // 4)
    assert pixels.shape[:2] == (int((2.6 * 80 / 120 * rows + 0.6) * 150), int(2.6 * columns * 150))
    assert [p.name for p in out.parent.iterdir()] == ["s.png"]


def test_a_contact_sheet_shows_the_scores_of_focal_losses(tmp_path):
    def drawn(score):
        return contact_sheet([_picture(scores=np.array([score]))], tmp_path / "s.png").read_bytes()

    assert drawn(0.35) != drawn(0.29) == drawn(0.01)


def test_contact_sheet_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([], tmp_path / "s.png")


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    out = tmp_path / "s.png"
    out.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(visualize.FigureCanvasAgg, "print_png", fail)
    with pytest.raises(OSError, match="disk full"):
        contact_sheet([_picture()], out)
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


class _Detector(torch.nn.Module):
    """Finds one object, in the coordinates of the image file."""

    def forward(self, inputs):
        assert not self.training
        (record,) = inputs
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 30.0, 40.0]]))
        found.scores = torch.tensor([0.75])
        found.pred_classes = torch.tensor([2])
        return [{"instances": found}]


def test_pictures_of_a_model(tmp_path):
    Image.new("RGB", (60, 50), (9, 8, 7)).save(tmp_path / "a.png")
    box = {"bbox": [5, 6, 10, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    record = {
        "file_name": str(tmp_path / "a.png"),
        "height": 50,
        "width": 60,
        "annotations": [box, {**box, "iscrowd": 1}],
    }
    model = _Detector().train()
    (picture,) = pictures_of(model, [record], mapper=lambda r: r)
    assert model.training
    np.testing.assert_array_equal(picture.image, np.full((50, 60, 3), (9, 8, 7), np.uint8))
    np.testing.assert_array_equal(picture.boxes, [[1, 2, 30, 40]])
    np.testing.assert_array_equal(picture.true_boxes, [[5, 6, 15, 26]])
    assert picture.classes.tolist() == [2] and picture.true_classes.tolist() == [1]
    assert picture.scores.tolist() == [0.75]


def _write_metrics(path, records, tail=""):
    path.write_text("".join(json.dumps(r) + "\n" for r in records) + tail)
    return path


def test_curves_read_what_is_there(tmp_path, caplog):
    records = [
        {"iteration": 19, "total_loss": 9.0},
        {"iteration": 39, "total_loss": 8.0, "bbox/AP": float("nan"), "bbox/AP50": 10.0},
        {"iteration": 59, "total_loss": 7.0, "lr": 0.1},
        {"iteration": 39, "total_loss": 5.0},  # resumed from 20
    ]
    path = _write_metrics(tmp_path / "metrics.json", records, tail='{"iteration": 79, "tot')
    read = visualize._read_metrics(path)
    assert "line 5" in caplog.text
    iterations, losses = visualize._series(read, "total_loss")
    assert iterations.tolist() == [19, 39, 59] and losses.tolist() == [9, 5, 7]
    assert visualize._series(read, "bbox/AP")[0].tolist() == []
    assert visualize._series(read, "bbox/AP50")[1].tolist() == [10]
    out = plot_curves(path, tmp_path / "plots" / "curves.png")
    with Image.open(out) as picture:
        assert picture.size == (1350, 510)  # 9 x 3.4 inches at 150 dpi


def test_curves_of_an_empty_file(tmp_path):
    assert plot_curves(_write_metrics(tmp_path / "m.json", []), tmp_path / "c.png").is_file()


def test_curves_need_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m\.json does not exist"):
        plot_curves(tmp_path / "m.json", tmp_path / "c.png")


def test_smoothing_keeps_a_constant_and_the_mean_of_a_line():
    np.testing.assert_allclose(visualize._smooth(np.full(50, 3.0)), 3.0)
    line = np.arange(100.0)  # a window of 2 to each side
    smooth = visualize._smooth(line)
    np.testing.assert_allclose(smooth[2:-2], line[2:-2])
    np.testing.assert_allclose(smooth[0], (0 + 1 + 2) / 3)
