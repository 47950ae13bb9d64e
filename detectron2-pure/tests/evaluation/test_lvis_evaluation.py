"""The numbers are those of the package lvis, computed here by hand."""

import json
import math

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import LVISEvaluator
from detectron2.structures import Boxes, Instances

SIZE = (50, 60)
BOX, OTHER = [5, 5, 25, 35], [30, 10, 50, 40]  # xyxy
RARE, COMMON, FREQUENT = 0, 1, 2


@pytest.fixture
def name(tmp_path):
    """One image with a rare object; more may be there; nothing common, frequent unknown."""
    x0, y0, x1, y1 = BOX
    content = {
        "images": [
            {
                "id": 1,
                "height": SIZE[0],
                "width": SIZE[1],
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [1],
            },
            {"id": 2, "height": SIZE[0], "width": SIZE[1]},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": image,
                "category_id": category,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": 600,
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            }
            for image, category in ((1, 1), (2, 2))
        ],
        "categories": [
            {"id": i + 1, "name": f, "frequency": f} for i, f in enumerate(("r", "c", "f"))
        ],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    MetadataCatalog.get("lvis_eval_test").json_file = str(path)
    yield "lvis_eval_test"
    MetadataCatalog.remove("lvis_eval_test")
    assert "lvis_eval_test" not in DatasetCatalog


def evaluate(name, *detections, **kwargs):
    """Of (image, box, class, score); the common object of the second image is always found."""
    evaluator = LVISEvaluator(name, **kwargs)
    detections = (*detections, (2, BOX, COMMON, 0.5))
    for image in (1, 2):
        found = [d for d in detections if d[0] == image]
        boxes = torch.tensor([d[1] for d in found], dtype=torch.float32).reshape(-1, 4)
        masks = torch.zeros(len(found), *SIZE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        instances = Instances(
            SIZE,
            pred_boxes=Boxes(boxes),
            pred_masks=masks,
            pred_classes=torch.tensor([d[2] for d in found], dtype=torch.int64),
            scores=torch.tensor([d[3] for d in found]),
        )
        evaluator.process([{"image_id": image}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "segm"]
    assert results["bbox"] == pytest.approx(results["segm"], nan_ok=True)
    return results["bbox"]


def test_metrics(name):
    results = evaluate(name, (1, BOX, RARE, 0.9))
    metrics = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"]
    assert list(results) == metrics
    assert results["AP"] == results["APs"] == results["APr"] == results["APc"] == 100
    assert math.isnan(results["APf"]) and math.isnan(results["APl"])


@pytest.mark.parametrize(
    ("image", "label", "common"),
    [
        (1, RARE, 100),  # perhaps it is there, not everything was annotated
        (2, RARE, 100),  # nobody looked for it
        (1, COMMON, 50),  # it is surely not there, and comes before the true one
    ],
)
def test_what_is_no_object(name, image, label, common):
    results = evaluate(name, (1, BOX, RARE, 0.9), (image, OTHER, label, 0.95))
    assert results["APr"] == 100 and results["APc"] == pytest.approx(common)


def test_limit_is_of_all_categories_together(name):
    both = (1, BOX, RARE, 0.5), (1, OTHER, FREQUENT, 0.9)
    assert evaluate(name, *both)["APr"] == 100
    assert evaluate(name, *both, max_dets_per_image=1)["APr"] == 0


def test_files_and_no_detections(name, tmp_path):
    evaluator = LVISEvaluator(name, output_dir=str(tmp_path / "out"))
    evaluator._predictions = [{"image_id": 1, "instances": []}]
    assert all(math.isnan(v) for v in evaluator.evaluate()["bbox"].values())
    assert (tmp_path / "out" / "lvis_instances_results.json").read_text() == "[]"
