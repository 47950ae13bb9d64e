import json
import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm
from PIL import Image

TRUTH = np.array([[0, 0, 1, 1], [0, 1, 1, 255]])
PREDICTION = np.array([[0, 1, 1, 1], [0, 1, 0, 2]])


@pytest.fixture
def dataset(tmp_path):
    Image.fromarray(TRUTH.astype(np.uint8)).save(tmp_path / "truth.png")
    record = {"file_name": "image.jpg", "sem_seg_file_name": str(tmp_path / "truth.png")}
    name = "sem_seg_test"
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(
        stuff_classes=["sky", "road", "tree"],
        ignore_label=255,
        stuff_dataset_id_to_contiguous_id={10: 0, 20: 1, 30: 2},
    )
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def feed(evaluator, prediction=PREDICTION):
    scores = torch.nn.functional.one_hot(torch.from_numpy(prediction), 3).permute(2, 0, 1)
    evaluator.process([{"file_name": "image.jpg"}], [{"sem_seg": scores.float()}])


def test_metrics(dataset):
    evaluator = SemSegEvaluator(dataset)
    feed(evaluator)
    assert evaluator._conf_matrix.tolist() == [  # subclasses of other projects work on it
        [2, 1, 0, 0],
        [1, 3, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    metrics = evaluator.evaluate()["sem_seg"]
    # sky: annotated 3, predicted 3 (the ignored pixel aside), both 2; road: 4, 4, 3; no tree
    sky, road = 100 * 2 / 4, 100 * 3 / 5
    expected = {
        "mIoU": (sky + road) / 2,
        "fwIoU": (3 * sky + 4 * road) / 7,
        "IoU-sky": sky,
        "IoU-road": road,
        "IoU-tree": float("nan"),
        "mACC": 100 * (2 / 3 + 3 / 4) / 2,
        "pACC": 100 * 5 / 7,
        "ACC-sky": 100 * 2 / 3,
        "ACC-road": 100 * 3 / 4,
        "ACC-tree": float("nan"),
    }
    assert list(metrics) == list(expected)
    assert metrics == pytest.approx(expected, nan_ok=True)


def test_given_ignore_label_goes_before_that_of_the_metadata(dataset):
    evaluator = SemSegEvaluator(
        dataset,
        ignore_label=1,
        sem_seg_loading_fn=lambda path, dtype: np.where(TRUTH == 255, 2, TRUTH),
    )
    feed(evaluator)
    assert math.isnan(evaluator.evaluate()["sem_seg"]["ACC-road"])


def test_counts_add_up_over_images_and_processes(dataset, monkeypatch):
    once, twice = SemSegEvaluator(dataset), SemSegEvaluator(dataset)
    feed(once)
    feed(twice)
    feed(twice, np.full_like(TRUTH, 2))
    np.testing.assert_array_equal(
        twice._conf_matrix[:2], once._conf_matrix[:2]
    )  # the second image has predictions of class 2 only
    assert twice._conf_matrix[2].tolist() == [3, 4, 0, 2]
    expected = once.evaluate()["sem_seg"]
    monkeypatch.setattr(comm, "gather", lambda data, dst: [data, data])
    assert once.evaluate()["sem_seg"] == pytest.approx(expected, nan_ok=True)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert once.evaluate() is None


def test_files(dataset, tmp_path):
    evaluator = SemSegEvaluator(dataset, output_dir=str(tmp_path / "out"))
    feed(evaluator)
    metrics = evaluator.evaluate()["sem_seg"]
    rows = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert [row["category_id"] for row in rows] == [10, 20, 30]
    decoded = [mask_util.decode([row["segmentation"]])[:, :, 0] for row in rows]
    np.testing.assert_array_equal(np.argmax(decoded, axis=0), PREDICTION)
    saved = torch.load(tmp_path / "out" / "sem_seg_evaluation.pth", weights_only=True)
    assert saved == pytest.approx(metrics, nan_ok=True)


def test_wrong_sizes_labels_and_arguments(dataset):
    evaluator = SemSegEvaluator(dataset)
    with pytest.raises(ValueError, match=r"image\.jpg has size \(1, 4\), .* \(2, 4\)"):
        feed(evaluator, PREDICTION[:1])
    evaluator = SemSegEvaluator(
        dataset, sem_seg_loading_fn=lambda path, dtype: np.full_like(TRUTH, 7)
    )
    with pytest.raises(ValueError, match=r"truth\.png has the label 7; .* 3 classes"):
        feed(evaluator)
    with pytest.raises(AssertionError, match="num_classes=5, but dataset 'sem_seg_test' has 3"):
        SemSegEvaluator(dataset, num_classes=5)
