import json
import logging

import pycocotools.mask as mask_util
import pytest
from detectron2.evaluation.coco_ground_truth import coco_from_dict, coco_from_json

TRIANGLE = [[10.0, 10.0, 30.0, 10.0, 10.0, 30.0]]


def dataset(*annotations):
    for annotation in annotations:
        annotation.update(image_id=7, category_id=1)
    return {
        "images": [{"id": 7, "height": 40, "width": 50}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": list(annotations),
    }


def test_complete_annotations_stay(caplog):
    annotation = {"id": 5, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 1}
    coco = coco_from_dict(dataset(dict(annotation)), "x")
    assert {k: coco.anns[5][k] for k in annotation} == annotation
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_missing_fields_are_filled_and_reported(caplog):
    coco = coco_from_dict(dataset({"id": 1, "bbox": [1, 2, 3, 4]}, {"id": 2, "bbox": [0] * 4}), "x")
    assert coco.anns[1]["area"] == 3 * 4
    assert coco.anns[1]["iscrowd"] == 0
    assert coco.dataset["info"] == {}
    assert "2 annotations of x have no 'area'" in caplog.text
    assert "2 annotations of x have no 'iscrowd'" in caplog.text
    assert "'bbox'" not in caplog.text


@pytest.mark.parametrize("form", ["polygons", "runs", "compressed"])
def test_box_and_area_come_from_the_mask(form):
    compressed = mask_util.merge(mask_util.frPyObjects(TRIANGLE, 40, 50))
    mask = mask_util.decode(compressed)
    flat = mask.T.reshape(-1).tolist()
    runs, value = [], 0
    while flat:  # lengths of alternating runs, starting with zeros, column by column
        length = next((i for i, v in enumerate(flat) if v != value), len(flat))
        runs.append(length)
        flat, value = flat[length:], 1 - value
    runs = {"size": [40, 50], "counts": runs}
    segmentation = {"polygons": TRIANGLE, "runs": runs, "compressed": compressed}[form]
    coco = coco_from_dict(dataset({"id": 1, "segmentation": segmentation}), "x")
    ys, xs = mask.nonzero()
    assert coco.anns[1]["area"] == mask.sum()
    assert coco.anns[1]["bbox"] == [
        xs.min(),
        ys.min(),
        xs.max() + 1 - xs.min(),
        ys.max() + 1 - ys.min(),
    ]


@pytest.mark.parametrize("ids", [[0, 1], [3, 3], [None, 1]])
def test_unusable_ids_are_replaced(ids):
    annotations = [{"bbox": [0, 0, i + 1, 1]} for i in range(2)]
    for annotation, number in zip(annotations, ids, strict=True):
        if number is not None:
            annotation["id"] = number
    coco = coco_from_dict(dataset(*annotations), "x")
    assert sorted(coco.anns) == [1, 2]
    assert [coco.anns[i]["bbox"][2] for i in (1, 2)] == [1, 2]


def test_unusable_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json' does not exist"):
        coco_from_json(str(tmp_path / "none.json"))
    path = tmp_path / "a.json"
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"a\.json' is not valid JSON"):
        coco_from_json(str(path))
    for content in ([], {"images": []}, {"categories": [], "images": {}}):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"a\.json is not a COCO annotation file: .* no list"):
            coco_from_json(str(path))
    path.write_text(json.dumps(dataset({"id": 4})))
    with pytest.raises(ValueError, match=r"Annotation 4 of .*a\.json has neither"):
        coco_from_json(str(path))
