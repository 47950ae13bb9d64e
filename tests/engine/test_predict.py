"""Pictures in, detections out, as an evaluation would have them."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_model
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from PIL import Image
from tiny_detector import TinyDetector

from detrex.checkpoint import CheckpointError, load_weights
from detrex.engine.predict import (
    Predictor,
    find_pictures,
    load_predictor,
    predict_files,
    read_picture,
    resize_for_test,
)


class Recorder(torch.nn.Module):
    """Returns its input, and keeps it."""

    num_classes = 2

    def forward(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        self.batch = batch
        return [{"instances": torch.tensor([i])} for i in range(len(batch))]


def test_it_equals_an_evaluation(tmp_path):
    config = tiny_model.write_config(tmp_path)
    weights = tiny_model.write_weights(tmp_path)
    (path,) = tiny_model.write_pictures(tmp_path, "a.png")
    predictor = load_predictor(str(config), [f"train.init_checkpoint={weights}"])
    cfg = LazyConfig.load(str(config))
    model = TinyDetector(2).eval()
    load_weights(model, weights)
    record = {"file_name": str(path), "height": 32, "width": 40}
    expected = model([instantiate(cfg.dataloader.test.mapper)(record)])[0]["instances"]
    (seen,) = predict_files(predictor, [path])
    assert seen.instances.image_size == (32, 40)
    for name in ("scores", "pred_classes"):
        torch.testing.assert_close(seen.instances.get(name), expected.get(name), rtol=0, atol=0)
    boxes, expected_boxes = seen.instances.pred_boxes.tensor, expected.pred_boxes.tensor
    torch.testing.assert_close(boxes, expected_boxes, rtol=0, atol=0)
    other = load_predictor(str(config), [f"train.init_checkpoint={weights}"], min_size=16)
    assert not torch.equal(next(predict_files(other, [path])).instances.scores, expected.scores)


@pytest.mark.parametrize("img_format", ["RGB", "BGR"])
def test_the_model_gets_its_order_of_channels_and_its_size(img_format):
    model = Recorder().train()
    predictor = Predictor(model, [T.HFlipTransform(40)], img_format)
    images = [tiny_model.picture(0), tiny_model.picture(1)]
    assert [int(x) for x in predictor.predict(images)] == [0, 1]
    for image, seen in zip(images, model.batch, strict=True):
        expected = image[:, ::-1] if img_format == "RGB" else image[:, ::-1, ::-1]
        np.testing.assert_array_equal(seen["image"].numpy(), expected.transpose(2, 0, 1))
        assert (seen["height"], seen["width"]) == (32, 40)


def test_the_size_is_detrs_by_default():
    model = Recorder()
    Predictor(model)(tiny_model.picture(0, 30, 40))
    assert model.batch[0]["image"].shape == (3, 800, 1067)
    Predictor(model, resize_for_test(60, 70))(tiny_model.picture(0, 30, 40))
    assert model.batch[0]["image"].shape == (3, 53, 70)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="img_format='L' is neither RGB nor BGR"):
        Predictor(Recorder(), img_format="L")
    predictor = Predictor(Recorder())
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"a picture is an array \(height, width, 3\)"):
            predictor(wrong)


def test_a_config_says_format_and_sizes_unless_they_are_given(tmp_path):
    config = tiny_model.write_config(tmp_path)
    config.write_text(config.read_text() + "\ndataloader.test.mapper.img_format = 'BGR'\n")
    given = [f"train.init_checkpoint={tiny_model.write_weights(tmp_path)}"]
    predictor = load_predictor(str(config), given)
    assert predictor.img_format == "BGR"
    assert predictor.prepare(tiny_model.picture(0))["image"].shape == (3, 20, 20)
    predictor = load_predictor(str(config), given, 64, 100, "RGB")
    assert predictor.img_format == "RGB"
    assert predictor.prepare(tiny_model.picture(0))["image"].shape == (3, 64, 80)


def test_a_model_alone_is_enough_and_its_checkpoint_names_the_classes(tmp_path):
    config = tmp_path / "model.py"
    config.write_text(
        "from detectron2.config import LazyCall as L\n"
        "from tiny_detector import TinyDetector\n"
        "model = L(TinyDetector)(num_classes=2)\n"
    )
    weights = tiny_model.write_weights(tmp_path, classes={"names": ["even", "odd"]})
    hint = f"'train.init_checkpoint={weights}?matching_heuristics=True'".strip("'")
    predictor = load_predictor(str(config), [hint])
    assert predictor.class_names == ["even", "odd"]
    assert predictor.prepare(tiny_model.picture(0))["image"].shape == (3, 800, 1000)


def test_averaged_weights_take_the_place_of_the_others(tmp_path):
    averaged = {name: value + 1 for name, value in TinyDetector(2).state_dict().items()}
    weights = tiny_model.write_weights(tmp_path, ema_state=averaged)
    config = str(tiny_model.write_config(tmp_path))
    given = [f"train.init_checkpoint={weights}", "train.model_ema.enabled=true"]
    bias = load_predictor(config, given).model.label.bias
    assert not torch.equal(bias, averaged["label.bias"])
    given.append("train.model_ema.use_ema_weights_for_eval_only=true")
    bias = load_predictor(config, given).model.label.bias
    torch.testing.assert_close(bias.detach(), averaged["label.bias"], rtol=0, atol=0)


def test_weights_have_to_be_there_and_to_fit(tmp_path):
    config = str(tiny_model.write_config(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist"):
        load_predictor(config, [f"train.init_checkpoint={tmp_path / 'no.pth'}"])
    with pytest.raises(FileNotFoundError, match="nothing to evaluate"):
        load_predictor(config, [f"train.output_dir={tmp_path}"])
    weights = tiny_model.write_weights(tmp_path)
    with pytest.raises(CheckpointError):
        load_predictor(config, [f"train.init_checkpoint={weights}", "model.num_classes=3"])


def test_pictures_are_found_by_name_folder_and_pattern(tmp_path):
    folder = tmp_path / "photos"
    b, a, c = tiny_model.write_pictures(folder, "b.png", "a.JPG", "[1].png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "sub").mkdir()
    (d,) = tiny_model.write_pictures(folder / "sub", "d.png")
    assert find_pictures([str(folder)]) == [c, a, b]
    assert find_pictures([b, folder]) == [b, c, a]
    assert find_pictures([c]) == [c]  # not a pattern
    assert find_pictures([str(folder / "?.png")]) == [b]
    assert find_pictures([str(folder / "**" / "*.png")]) == [c, b, d]
    assert find_pictures(["missing.png"]) == [tmp_path.__class__("missing.png")]
    for empty in (str(folder / "*.bmp"), str(tmp_path)):
        with pytest.raises(FileNotFoundError, match="has no pictures; name files, a folder"):
            find_pictures([empty])


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_done(tmp_path):
    good, broken, empty = tiny_model.write_pictures(tmp_path, "a.png", "b.png", "c.jpg")
    broken.write_bytes(broken.read_bytes()[:200])
    empty.write_bytes(b"")
    missing = tmp_path / "missing.png"
    seen = list(predict_files(Predictor(Recorder()), [broken, missing, empty, good]))
    assert [s.path for s in seen] == [broken, missing, empty, good]
    assert [bool(s.error) for s in seen] == [True, True, True, False]
    for s in seen[:3]:
        assert str(s.path) in s.error and s.error.endswith(".") and "\n" not in s.error
        assert s.image is None and s.instances is None
    np.testing.assert_array_equal(seen[3].image, tiny_model.picture(0))


def test_pictures_are_upright_and_rgb(tmp_path):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left
    pixels = tiny_model.picture(0)
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(read_picture(path), np.rot90(pixels, -1))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "gray.png"), pixels[..., :1].repeat(3, 2))
