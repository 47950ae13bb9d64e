import contextlib
import copy
import importlib
import io
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.evaluation import fast_eval_api
from detectron2.evaluation.coco_evaluation import _evaluate_predictions_on_coco
from detectron2.evaluation.coco_ground_truth import coco_from_dict
from detectron2.evaluation.coco_max_dets import COCOevalMaxDets, format_summary
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from pycocotools.cocoeval import COCOeval

SIZE = 160
NUM_CLASSES = 3


def random_boxes(rng, count):
    corner = rng.uniform(0, 100, (count, 2))
    return np.hstack([corner, rng.uniform(4, 60, (count, 2))])


def box_mask(box):
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h * 0.7, x, y + h]
    rle = mask_util.merge(mask_util.frPyObjects([polygon], SIZE, SIZE))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_case(seed, num_images=6, num_objects=5, num_detections=60):
    """Annotations with crowds, and detections scattered around them."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in range(1, num_images):
        for box in random_boxes(rng, rng.integers(0, num_objects + 1)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.integers(NUM_CLASSES)),
                    "bbox": box.tolist(),
                    "segmentation": box_mask(box),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    for _ in range(num_detections):
        target = annotations[rng.integers(len(annotations))]
        box = np.abs(np.array(target["bbox"]) + rng.normal(0, 1.5, 4))
        results.append(
            {
                "image_id": int(rng.choice([target["image_id"], num_images])),
                "category_id": int(rng.choice([target["category_id"], 0])),
                "bbox": box.tolist(),
                "segmentation": box_mask(box),
                "score": float(rng.choice([0.25, rng.random()])),  # some scores are equal
            }
        )
    dataset = {
        "images": [{"id": i + 1, "height": SIZE, "width": SIZE} for i in range(num_images)],
        "categories": [{"id": i, "name": str(i)} for i in range(NUM_CLASSES + 1)],
        "annotations": annotations,
    }
    return coco_from_dict(dataset, "random"), results


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("max_dets", [[1, 10, 100], [1, 3, 5], [1, 10, 300]])
@pytest.mark.parametrize("seed", range(3))
def test_fast_numbers_equal_those_of_pycocotools(iou_type, max_dets, seed):
    coco, results = random_case(seed)
    fast, slow = (
        _evaluate_predictions_on_coco(
            coco, results, iou_type, cocoeval_fn=fn, max_dets_per_image=max_dets
        )
        for fn in (COCOeval_opt, COCOeval)
    )
    np.testing.assert_allclose(fast.stats, slow.stats, rtol=0, atol=1e-12)
    for key in ("precision", "recall", "scores"):
        np.testing.assert_allclose(fast.eval[key], slow.eval[key], rtol=0, atol=1e-12)
    assert fast.stats[0] > 0.02


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_summary_is_that_of_pycocotools(iou_type):
    coco, results = random_case(3)
    if iou_type == "segm":
        results = [{k: v for k, v in r.items() if k != "bbox"} for r in results]
    with contextlib.redirect_stdout(io.StringIO()):
        slow = COCOeval(coco, coco.loadRes(results), iou_type)
        slow.evaluate()
        slow.accumulate()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        slow.summarize()
    assert format_summary(slow) == printed.getvalue().rstrip("\n")
    expected = slow.stats
    slow.__class__ = COCOevalMaxDets
    slow.summarize()
    np.testing.assert_allclose(slow.stats, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_results_stay_and_areas_are_those_of_the_shapes(iou_type):
    coco, results = random_case(5)
    before = copy.deepcopy(results)
    found = _evaluate_predictions_on_coco(coco, results, iou_type).cocoDt.dataset["annotations"]
    assert results == before
    if iou_type == "segm":
        areas = mask_util.area([result["segmentation"] for result in results]).tolist()
    else:
        areas = [result["bbox"][2] * result["bbox"][3] for result in results]
    assert [a["area"] for a in found] == pytest.approx(areas)


def test_choice_of_the_implementation_by_its_old_name():
    coco, results = random_case(6)
    fast = _evaluate_predictions_on_coco(coco, results, "bbox")
    slow = _evaluate_predictions_on_coco(coco, results, "bbox", use_fast_impl=False)
    assert type(fast) is COCOeval_opt and type(slow) is COCOevalMaxDets


def test_limit_changes_the_numbers():
    coco, results = random_case(4, num_images=2, num_objects=5, num_detections=600)
    at = {
        limit: _evaluate_predictions_on_coco(
            coco, results, "bbox", max_dets_per_image=[1, 10, limit]
        ).stats
        for limit in (10, 100, 300)
    }
    assert at[10][8] < at[100][8] <= at[300][8]


def test_summary_needs_numbers():
    with pytest.raises(RuntimeError, match="accumulate"):
        COCOevalMaxDets().summarize()


def test_without_faster_coco_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    try:
        assert importlib.reload(fast_eval_api).COCOeval_opt is COCOevalMaxDets
    finally:
        monkeypatch.undo()
        importlib.reload(fast_eval_api)
