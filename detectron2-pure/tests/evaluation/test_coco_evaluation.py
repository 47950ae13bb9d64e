import json
import logging
import math
import os

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from detectron2.utils import comm

SIZE = (60, 80)
BOXES = {  # image id -> (category id, XYXY box)
    11: [(4, (10, 10, 30, 40)), (9, (40, 5, 70, 50))],
    12: [(4, (5, 5, 25, 25))],
    13: [],
}
CONTIGUOUS = {4: 0, 9: 1}


def to_xywh(box):
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def polygon(box):
    x0, y0, x1, y1 = box
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


@pytest.fixture
def catalog():
    """Function that registers names, which are gone after the test."""
    names = []

    def register(name, function, **metadata):
        names.append(name)
        DatasetCatalog.register(name, function)
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def make_dataset(tmp_path, catalog):
    """Function that writes a json with given extra annotation fields and registers it."""

    def make(fields=lambda box: {}, **top_level):
        annotations = [
            {"image_id": image, "category_id": category, "bbox": to_xywh(box), **fields(box)}
            for image, objects in BOXES.items()
            for category, box in objects
        ]
        content = {
            "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in BOXES],
            "categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
            "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
            **top_level,
        }
        content = {key: value for key, value in content.items() if value is not None}
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        return catalog(
            "eval_test",
            list,
            json_file=str(path),
            thing_classes=["cat", "dog"],
            thing_dataset_id_to_contiguous_id=CONTIGUOUS,
        )

    return make


def predictions(objects, masks=False, score=0.9):
    instances = Instances(SIZE)
    boxes = torch.tensor([box for _, box in objects], dtype=torch.float32).reshape(-1, 4)
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.full((len(objects),), score)
    instances.pred_classes = torch.tensor([CONTIGUOUS[c] for c, _ in objects], dtype=torch.int64)
    if masks:
        bitmaps = torch.zeros(len(objects), *SIZE, dtype=torch.bool)
        for bitmap, (_, (x0, y0, x1, y1)) in zip(bitmaps, objects, strict=True):
            bitmap[y0:y1, x0:x1] = True
        instances.pred_masks = bitmaps
    return {"instances": instances}


def feed(evaluator, by_image, **kwargs):
    for image_id, objects in by_image.items():
        evaluator.process([{"image_id": image_id}], [predictions(objects, **kwargs)])


@pytest.mark.parametrize("use_fast_impl", [True, False])
@pytest.mark.parametrize("max_dets", [None, 300])
def test_perfect_predictions(make_dataset, use_fast_impl, max_dets):
    name = make_dataset()  # without info, area and iscrowd, and with an annotation id 0
    evaluator = COCOEvaluator(name, use_fast_impl=use_fast_impl, max_dets_per_image=max_dets)
    feed(evaluator, BOXES)
    results = evaluator.evaluate()
    assert list(results) == ["bbox"]
    metrics = results["bbox"]
    assert list(metrics) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"]
    # all boxes have between 20 x 20 and 30 x 45 pixels, so that none is large
    assert math.isnan(metrics.pop("APl"))
    assert metrics == pytest.approx(dict.fromkeys(metrics, 100.0))


def test_half_of_the_cats(make_dataset):
    evaluator = COCOEvaluator(make_dataset())
    feed(evaluator, {**BOXES, 12: []})
    metrics = evaluator.evaluate()["bbox"]
    # one of two cats, precision 1 at the 51 of 101 recall points up to 0.5
    assert metrics["AP-cat"] == pytest.approx(100 * 51 / 101)
    assert metrics["AP-dog"] == pytest.approx(100)
    assert metrics["AP"] == pytest.approx((metrics["AP-cat"] + metrics["AP-dog"]) / 2)


@pytest.mark.parametrize("use_fast_impl", [True, False])
@pytest.mark.parametrize("limit", [None, 1, 2])
def test_only_the_best_detections_count(make_dataset, use_fast_impl, limit):
    evaluator = COCOEvaluator(make_dataset(), max_dets_per_image=limit, use_fast_impl=use_fast_impl)
    wrong = [(4, (60, 0, 79, 9))]
    for image_id, objects in BOXES.items():
        for found, score in ((wrong, 0.9), (objects, 0.8)):
            evaluator.process([{"image_id": image_id}], [predictions(found, score=score)])
    metrics = evaluator.evaluate()["bbox"]
    # three wrong cats before the two right ones: precision 1/4 and 2/5, so 2/5 everywhere
    assert metrics["AP-cat"] == pytest.approx(0 if limit == 1 else 100 * 2 / 5)
    assert metrics["AP-dog"] == pytest.approx(100)


def test_masks(make_dataset):
    name = make_dataset(lambda box: {"segmentation": polygon(box)})
    evaluator = COCOEvaluator(name)
    feed(evaluator, BOXES, masks=True)
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "segm"]
    assert results["segm"]["AP"] == pytest.approx(100)
    evaluator = COCOEvaluator(name, tasks=("bbox",))
    feed(evaluator, BOXES, masks=True)
    assert list(evaluator.evaluate()) == ["bbox"]


def test_masks_without_annotated_masks(make_dataset):
    evaluator = COCOEvaluator(make_dataset())
    feed(evaluator, BOXES, masks=True)
    with pytest.raises(ValueError, match=r"3 annotations .* tasks=\('bbox',\)"):
        evaluator.evaluate()


def test_task_without_predictions_for_it(make_dataset):
    evaluator = COCOEvaluator(make_dataset(), tasks=("bbox", "segm"))
    feed(evaluator, BOXES)
    with pytest.raises(ValueError, match="no 'segmentation', so 'segm' cannot be evaluated"):
        evaluator.evaluate()


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_keypoints(make_dataset, use_fast_impl):
    """Three points at the corners; in image 11 the last one is off by the width of the box."""

    def corners(box, off=0):
        x0, y0, x1, y1 = box
        return [x0, y0, 2, x1, y0, 2, x1 + off, y1, 2]

    name = make_dataset(lambda box: {"keypoints": corners(box), "num_keypoints": 3})
    evaluator = COCOEvaluator(name, use_fast_impl=use_fast_impl, kpt_oks_sigmas=[0.05] * 3)
    for image_id, objects in BOXES.items():
        output = predictions(objects)
        off = 20 if image_id == 11 else 0
        points = torch.tensor([corners(box, off) for _, box in objects]).reshape(-1, 3, 3)
        # What detectron2 calls a pixel's coordinate is its center.
        output["instances"].pred_keypoints = points + torch.tensor([0.5, 0.5, -1])
        evaluator.process([{"image_id": image_id}], [output])
    results = evaluator.evaluate()
    assert list(results["keypoints"])[:5] == ["AP", "AP50", "AP75", "APm", "APl"]
    # Two of three points are right in image 11, which is enough for thresholds up to 0.65, that is
    # for 4 of 10. With the others the cat there is wrong, and as it comes first, the precision of
    # the right one of image 12 is 1/2, at the 51 of 101 recall points up to 0.5.
    assert results["keypoints"]["AP-dog"] == pytest.approx(40)
    assert results["keypoints"]["AP-cat"] == pytest.approx(40 + 60 * 51 / 101 / 2)
    assert results["bbox"]["AP"] == pytest.approx(100)


def test_evaluating_twice_and_after_reset(make_dataset):
    evaluator = COCOEvaluator(make_dataset())
    feed(evaluator, BOXES)
    first = evaluator.evaluate()
    np.testing.assert_equal(evaluator.evaluate(), first)
    evaluator.reset()
    assert evaluator.evaluate() == {}


def test_some_images_only(make_dataset, caplog):
    evaluator = COCOEvaluator(make_dataset())
    feed(evaluator, {12: BOXES[12]})
    assert evaluator.evaluate(img_ids=[12])["bbox"]["AP"] == pytest.approx(100)
    assert "not processed" not in caplog.text
    assert evaluator.evaluate()["bbox"]["AP-cat"] == pytest.approx(100 * 51 / 101)
    assert "2 of 3 images of 'eval_test' were not processed" in caplog.text


def test_no_detections_at_all(make_dataset):
    evaluator = COCOEvaluator(make_dataset())
    feed(evaluator, {image: [] for image in BOXES})
    metrics = evaluator.evaluate()["bbox"]
    assert list(metrics) == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert all(math.isnan(value) for value in metrics.values())


def test_class_out_of_range(make_dataset):
    evaluator = COCOEvaluator(make_dataset())
    output = predictions(BOXES[11])
    output["instances"].pred_classes[1] = 2
    evaluator.process([{"image_id": 11}], [output])
    with pytest.raises(AssertionError, match=r"class=2, but .* has 2 classes .* in \[0, 1\]"):
        evaluator.evaluate()


def test_unknown_image(make_dataset):
    evaluator = COCOEvaluator(make_dataset())
    feed(evaluator, {99: BOXES[11]})
    with pytest.raises(AssertionError, match="1 image ids, such as 99, are not in"):
        evaluator.evaluate()


def test_files(make_dataset, tmp_path):
    output_dir = tmp_path / "inference"
    evaluator = COCOEvaluator(make_dataset(), output_dir=str(output_dir))
    feed(evaluator, BOXES)
    evaluator.evaluate()
    files = ["coco_instances_results.json", "instances_predictions.pth"]
    assert sorted(os.listdir(output_dir)) == files
    rows = json.loads((output_dir / files[0]).read_text())
    expected = [(image, *obj) for image, objects in BOXES.items() for obj in objects]
    for row, (image, category, box) in zip(rows, expected, strict=True):
        assert (row["image_id"], row["category_id"]) == (image, category)
        assert row["bbox"] == to_xywh(box)
        assert row["score"] == pytest.approx(0.9)
    saved = torch.load(output_dir / files[1], weights_only=True)
    assert [p["image_id"] for p in saved] == list(BOXES)


def test_without_annotations_results_are_only_written(make_dataset, tmp_path):
    evaluator = COCOEvaluator(make_dataset(annotations=None), output_dir=str(tmp_path / "out"))
    feed(evaluator, BOXES)
    assert evaluator.evaluate() == {}
    assert (tmp_path / "out" / "coco_instances_results.json").exists()


@pytest.mark.parametrize("with_output_dir", [True, False])
@pytest.mark.parametrize("new_id", [int, str, lambda image: 2**60 + image])
def test_dataset_that_is_not_coco(catalog, tmp_path, with_output_dir, new_id):
    """Its image ids may be of any kind: names, or numbers that no float holds exactly."""

    def load():
        return [
            {
                "file_name": f"{image}.jpg",
                "image_id": new_id(image),
                "height": SIZE[0],
                "width": SIZE[1],
                "annotations": [
                    {"category_id": CONTIGUOUS[c], "bbox": box, "bbox_mode": BoxMode.XYXY_ABS}
                    for c, box in objects
                ],
            }
            for image, objects in BOXES.items()
        ]

    name = catalog("eval_test_dicts", load, thing_classes=["cat", "dog"])
    output_dir = str(tmp_path) if with_output_dir else None
    evaluator = COCOEvaluator(name, output_dir=output_dir)
    for image, objects in BOXES.items():
        evaluator.process([{"image_id": new_id(image)}], [predictions(objects)])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    assert (tmp_path / "eval_test_dicts_coco_format.json").exists() == with_output_dir


def test_dataset_names_as_configs_have_them(make_dataset):
    name = make_dataset()
    assert COCOEvaluator([name])._metadata is COCOEvaluator(name)._metadata
    with pytest.raises(ValueError, match="one dataset at a time"):
        COCOEvaluator([name, name])
    with pytest.raises(ValueError, match="Unknown tasks"):
        COCOEvaluator(name, tasks=("boxes",))


def test_yacs_config_in_the_place_of_tasks(make_dataset):
    cfg = CfgNode({"TEST": {"KEYPOINT_OKS_SIGMAS": [0.1, 0.2]}})
    evaluator = COCOEvaluator(make_dataset(), cfg, False)
    assert evaluator._tasks is None and evaluator._kpt_oks_sigmas == [0.1, 0.2]


def test_dataset_that_was_not_loaded_yet(make_dataset, catalog):
    """Its metadata has neither names nor ids; they come from the json."""
    path = MetadataCatalog.get(make_dataset()).json_file
    evaluator = COCOEvaluator(catalog("eval_test_lazy", list, json_file=path))
    feed(evaluator, {**BOXES, 12: []})
    metrics = evaluator.evaluate()["bbox"]
    assert metrics["AP-dog"] == pytest.approx(100) and metrics["AP-cat"] < 100


def test_names_follow_the_metadata_when_ids_are_not_in_order(make_dataset, catalog):
    path = MetadataCatalog.get(make_dataset()).json_file
    id_map = {4: 1, 9: 0}
    name = catalog(
        "eval_test_order",
        list,
        json_file=path,
        thing_classes=["dog", "cat"],
        thing_dataset_id_to_contiguous_id=id_map,
    )
    evaluator = COCOEvaluator(name)
    for image_id, objects in {**BOXES, 12: []}.items():
        output = predictions(objects)
        classes = torch.tensor([id_map[c] for c, _ in objects], dtype=torch.int64)
        output["instances"].pred_classes = classes
        evaluator.process([{"image_id": image_id}], [output])
    metrics = evaluator.evaluate()["bbox"]
    assert metrics["AP-dog"] == pytest.approx(100) and metrics["AP-cat"] < 100


def test_log_has_summary_and_table_per_class(make_dataset, caplog, capsys, monkeypatch):
    # Other tests may have set up the logger: with a console handler, and apart from the root.
    monkeypatch.setattr(logging.getLogger("detectron2"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    evaluator = COCOEvaluator(make_dataset())
    feed(evaluator, BOXES)
    with caplog.at_level(logging.INFO, logger="detectron2.evaluation"):
        evaluator.evaluate()
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000" in (
        caplog.text
    )
    assert "Evaluation results for bbox:" in caplog.text
    assert "Per-category bbox AP:" in caplog.text
    assert "| cat        | 100.000 | dog        | 100.000 |" in caplog.text
    assert capsys.readouterr().out == ""


def test_json_of_instances():
    output = predictions(BOXES[11], masks=True)["instances"]
    output.pred_keypoints = torch.tensor([[[1.5, 2.5, 0.75]], [[3.0, 4.0, 1.0]]])
    before = output.pred_boxes.tensor.clone()
    rows = instances_to_coco_json(output, "id")
    assert json.loads(json.dumps(rows)) == rows
    assert [row["bbox"] for row in rows] == [to_xywh(box) for _, box in BOXES[11]]
    assert rows[0]["keypoints"] == [1.0, 2.0, 0.75]
    assert rows[1]["segmentation"]["size"] == list(SIZE)
    assert torch.equal(output.pred_boxes.tensor, before)
    assert instances_to_coco_json(predictions([])["instances"], "id") == []
    as_tensor = rows[1]["segmentation"]
    for masks in (output.pred_masks.numpy(), BitMasks(output.pred_masks)):
        output.pred_masks = masks
        assert instances_to_coco_json(output, "id")[1]["segmentation"] == as_tensor


def test_predictions_of_all_processes_are_evaluated_by_the_main_one(make_dataset, monkeypatch):
    evaluator, other = (COCOEvaluator(name) for name in [make_dataset()] * 2)
    feed(evaluator, {11: BOXES[11]})
    feed(other, {12: BOXES[12], 13: []})
    monkeypatch.setattr(comm, "gather", lambda data, dst: [data, other._predictions])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert evaluator.evaluate() == {}
