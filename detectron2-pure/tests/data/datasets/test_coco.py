"""COCO json in and out."""

import json
import logging
import os

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    convert_to_coco_dict,
    convert_to_coco_json,
    load_coco_json,
    load_sem_seg,
    register_coco_instances,
)
from detectron2.structures import BoxMode
from PIL import Image

NAMES = ("blood_test", "other_test")


@pytest.fixture(autouse=True)
def clean_catalogs():
    yield
    for name in NAMES:
        DatasetCatalog.data.pop(name, None)
        MetadataCatalog.data.pop(name, None)


def content():
    """A good file: ids with gaps, images out of order, two categories out of order."""
    return {
        "images": [
            {"id": 9, "file_name": "b.jpg", "height": 40, "width": 30},
            {"id": 2, "file_name": "a.jpg", "height": 20, "width": 50},
        ],
        "categories": [{"id": 7, "name": "WBC"}, {"id": 3, "name": "RBC"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [5, 6, 7, 8], "score": 0.5},
        ],
    }


def write(folder, data):
    path = str(folder / "data.json")
    with open(path, "w") as f:
        f.write(data if isinstance(data, str) else json.dumps(data))
    return path


def load(folder, data, name="blood_test", **kwargs):
    return load_coco_json(write(folder, data), "root", name, **kwargs)


def test_records_are_sorted_and_categories_contiguous(tmp_path):
    records = load(tmp_path, content())
    assert records == [
        {
            "file_name": os.path.join("root", "a.jpg"),
            "height": 20,
            "width": 50,
            "image_id": 2,
            "annotations": [],
        },
        {
            "file_name": os.path.join("root", "b.jpg"),
            "height": 40,
            "width": 30,
            "image_id": 9,
            "annotations": [
                {
                    "iscrowd": 1,
                    "bbox": [1, 2, 3, 4],
                    "category_id": 1,
                    "bbox_mode": BoxMode.XYWH_ABS,
                },
                {
                    "iscrowd": 0,
                    "bbox": [5, 6, 7, 8],
                    "category_id": 0,
                    "bbox_mode": BoxMode.XYWH_ABS,
                },
            ],
        },
    ]
    metadata = MetadataCatalog.get("blood_test")
    assert metadata.thing_classes == ["RBC", "WBC"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}


def test_without_a_name_ids_stay(tmp_path):
    records = load(tmp_path, content(), name=None)
    assert [a["category_id"] for a in records[1]["annotations"]] == [7, 3]


def test_extra_keys_are_kept_where_present(tmp_path):
    annotations = load(tmp_path, content(), extra_annotation_keys=["score"])[1]["annotations"]
    assert "score" not in annotations[0] and annotations[1]["score"] == 0.5


def test_test_set_without_annotations(tmp_path):
    data = content()
    del data["annotations"]
    assert [r["annotations"] for r in load(tmp_path, data)] == [[], []]
    assert MetadataCatalog.get("blood_test").thing_classes == ["RBC", "WBC"]


def change(key, index, **values):
    """The good content with some entries of one record replaced; None removes one."""
    data = content()
    record = data[key][index]
    record.update(values)
    for name in [name for name, value in values.items() if value is None]:
        del record[name]
    return data


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        ('{"images": [{"id"', ValueError, "not valid JSON"),
        ("[1, 2]", ValueError, "not in COCO format"),
        ({**content(), "images": []}, ValueError, "its 'images' is empty"),
        ({"annotations": [], "categories": []}, ValueError, "has no 'images'.*'annotations'"),
        ({**content(), "images": {"id": 1}}, ValueError, "'images' is not a list"),
        ({**content(), "categories": []}, ValueError, "annotations but no 'categories'"),
        (change("images", 0, height=None), KeyError, r"Image 9 \('b.jpg'\).*no height"),
        (change("images", 0, width=None, height=None), KeyError, "no height and no width"),
        (change("images", 0, width=0), ValueError, "Image 9.*size of 0 x 40"),
        (change("images", 0, id=2), AssertionError, "Image ids.*not unique.*2"),
        (change("annotations", 0, id=2), AssertionError, "Annotation ids.*not unique.*2"),
        (change("categories", 0, id=3), AssertionError, "Category ids.*not unique.*3"),
        (change("categories", 0, name=None), ValueError, "Category .*no name"),
        (change("annotations", 0, bbox=[]), ValueError, r"Annotation 1 of image 9.*bbox of \[\]"),
        (change("annotations", 0, bbox=[1, 2, 3]), ValueError, r"has to be \[x, y, width, height"),
        (change("annotations", 0, bbox=["1", 2, 3, 4]), ValueError, "Annotation 1 of image 9"),
        (change("annotations", 0, bbox=3), ValueError, "Annotation 1 of image 9"),
        (change("annotations", 0, category_id=None), ValueError, "Annotation 1.*no category_id"),
        (change("annotations", 0, image_id=None), ValueError, "Annotation 1.*no image_id"),
    ],
)
def test_useless_file_is_an_error_that_names_it(tmp_path, data, error, match):
    with pytest.raises(error, match=match) as info:
        load(tmp_path, data)
    assert str(tmp_path / "data.json") in str(info.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.json' does not exist"):
        load_coco_json(str(tmp_path / "nothing.json"), "root")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"bbox": [1, 2, 0, 4]}, "left out 1 of 2 annotations that have a box without area"),
        ({"bbox": [1, 2, 3, -4]}, "left out 1 of 2 annotations that have a box without area"),
        ({"bbox": [1, float("nan"), 3, 4]}, "infinite or undefined"),
        ({"bbox": [1, 2, float("inf"), 4]}, "infinite or undefined"),
        ({"category_id": 99}, "a category that the file does not list"),
        ({"image_id": 99}, "images that the file does not list"),
    ],
)
def test_bad_record_is_left_out_and_reported(tmp_path, caplog, values, match):
    with caplog.at_level(logging.WARNING):
        records = load(tmp_path, change("annotations", 0, **values))
    assert [a["bbox"] for r in records for a in r["annotations"]] == [[5, 6, 7, 8]]
    assert match in caplog.text and "(ids 1)" in caplog.text
    assert str(tmp_path / "data.json") in caplog.text


def test_many_bad_records_are_one_warning(tmp_path, caplog):
    data = content()
    bad = {"image_id": 9, "category_id": 3, "bbox": [0, 0, 0, 0]}
    data["annotations"] += [{"id": 100 + i, **bad} for i in range(8)]
    with caplog.at_level(logging.WARNING):
        load(tmp_path, data)
    assert [r.message for r in caplog.records] == [
        f"'{tmp_path / 'data.json'}': left out 8 of 10 annotations that have a box without area "
        "(ids 100, 101, 102, 103, 104, ...)."
    ]


def test_bad_polygons_leave_the_box(tmp_path, caplog):
    good = [1.0, 2.0, 4.0, 2.0, 4.0, 6.0]
    data = change("annotations", 0, segmentation=[[1, 2, 3, 4], good[:5]])
    data["annotations"][1]["segmentation"] = [[1, 2], good]
    with caplog.at_level(logging.WARNING):
        annotations = load(tmp_path, data)[1]["annotations"]
    assert annotations[0]["bbox"] == [1, 2, 3, 4] and "segmentation" not in annotations[0]
    assert annotations[1]["segmentation"] == [good]
    assert "1 annotations have no usable polygon and keep only their box (ids 1)" in caplog.text


def test_both_kinds_of_run_lengths(tmp_path):
    mask = np.zeros((40, 30), dtype=np.uint8, order="F")
    mask[5:10, 3:9] = 1
    rle = mask_util.encode(mask)
    runs = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel("F"), [1 - mask[-1, -1]]])))
    counts = np.diff(np.concatenate([[0], runs])).tolist()
    data = change("annotations", 0, segmentation={"size": [40, 30], "counts": counts})
    data["annotations"][1]["segmentation"] = {
        "size": [40, 30],
        "counts": rle["counts"].decode("ascii"),
    }
    for annotation in load(tmp_path, data)[1]["annotations"]:
        np.testing.assert_array_equal(mask_util.decode(annotation["segmentation"]), mask)


def test_keypoints_move_to_pixel_centers(tmp_path):
    data = change("annotations", 0, keypoints=[10, 20, 2, 0, 0, 0])
    annotation = load(tmp_path, data)[1]["annotations"][0]
    assert annotation["keypoints"] == [10.5, 20.5, 2, 0.5, 0.5, 0]


def test_known_class_names_have_to_agree(tmp_path):
    MetadataCatalog.get("blood_test").thing_classes = ["x"]
    with pytest.raises(AssertionError, match=r"known to have thing_classes.*x.*RBC"):
        load(tmp_path, content())


def test_registering_twice(tmp_path):
    path = write(tmp_path, content())
    for _ in range(2):
        register_coco_instances("blood_test", {"note": 1}, path, "root")
        assert len(DatasetCatalog.get("blood_test")) == 2
    metadata = MetadataCatalog.get("blood_test")
    assert (metadata.json_file, metadata.image_root) == (path, "root")
    assert (metadata.evaluator_type, metadata.note) == ("coco", 1)
    for other in ((path, "elsewhere"), ("else.json", "root")):
        with pytest.raises(AssertionError, match=r"'blood_test' is already registered.*data.json"):
            register_coco_instances("blood_test", {}, *other)
    with pytest.raises(AssertionError, match="note"):
        register_coco_instances("blood_test", {"note": 2}, path, "root")
    DatasetCatalog.register("other_test", list)
    with pytest.raises(AssertionError, match="'other_test' is already registered"):
        register_coco_instances("other_test", {}, path, "root")


def register_records(annotations, **metadata):
    records = [
        {"file_name": "a.jpg", "height": 20, "width": 10, "image_id": 5, "annotations": annotations}
    ]
    DatasetCatalog.register("other_test", lambda: records)
    MetadataCatalog.get("other_test").set(thing_classes=["x", "y"], **metadata)


def test_convert_to_coco(tmp_path):
    square = [[2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]]
    mask = np.zeros((20, 10), dtype=np.uint8, order="F")
    mask[1:4, 2:9] = 1
    box = {"bbox": np.array([2.0, 2.0, 6.12345, 6.0]), "bbox_mode": BoxMode.XYXY_ABS}
    register_records(
        [
            {**box, "category_id": 1, "segmentation": square},
            {**box, "category_id": 0, "segmentation": mask_util.encode(mask), "iscrowd": 1},
            {**box, "category_id": 0, "keypoints": [1.5, 2.5, 2, 3.5, 4.5, 0]},
            {"bbox": (5, 5, 4, 2, 0), "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0},
        ],
        thing_dataset_id_to_contiguous_id={11: 0, 22: 1},
    )
    data = convert_to_coco_dict("other_test")
    assert data["images"] == [{"id": 5, "width": 10, "height": 20, "file_name": "a.jpg"}]
    assert data["categories"] == [{"id": 11, "name": "x"}, {"id": 22, "name": "y"}]
    first, second, third, rotated = data["annotations"]
    assert first["bbox"] == [2.0, 2.0, 4.123, 4.0] and first["segmentation"] == square
    assert [a["id"] for a in data["annotations"]] == [1, 2, 3, 4]
    assert [a["image_id"] for a in data["annotations"]] == [5] * 4
    assert [a["category_id"] for a in data["annotations"]] == [22, 11, 11, 11]
    assert [a["iscrowd"] for a in data["annotations"]] == [0, 1, 0, 0]
    # The square has sides of 4, the mask 3 rows of 7; the others have width times height.
    assert [a["area"] for a in data["annotations"]] == [16, 21, pytest.approx(4.12345 * 4), 8]
    assert third["keypoints"] == [1.0, 2.0, 2, 3.0, 4.0, 0] and third["num_keypoints"] == 1
    assert rotated["bbox"] == [5, 5, 4, 2, 0]
    text = json.loads(json.dumps(second["segmentation"]))
    np.testing.assert_array_equal(mask_util.decode(text), mask)


def test_conversion_round_trip(tmp_path):
    square = [[2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]]
    box = {"bbox": [2.0, 3.0, 4.0, 5.0], "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
    register_records([{**box, "category_id": 1, "segmentation": square}])
    path = str(tmp_path / "out" / "coco.json")
    convert_to_coco_json("other_test", path)
    assert os.listdir(tmp_path / "out") == ["coco.json"]
    records = load_coco_json(path, "", "blood_test")
    assert records == DatasetCatalog.get("other_test")


def test_cached_conversion(tmp_path, caplog):
    register_records([])
    path = write(tmp_path, "old")
    with caplog.at_level(logging.WARNING):
        convert_to_coco_json("other_test", path)
    assert "previously cached" in caplog.text and (tmp_path / "data.json").read_text() == "old"
    convert_to_coco_json("other_test", path, allow_cached=False)
    data = json.loads((tmp_path / "data.json").read_text())
    assert len(data["images"]) == 1
    assert "annotations" not in data  # so an evaluator knows that there are none


def test_failed_conversion_leaves_nothing(tmp_path):
    register_records([{"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}])
    MetadataCatalog.get("other_test").thing_dataset_id_to_contiguous_id = {"x": 0}
    with pytest.raises(ValueError):  # "x" is no number
        convert_to_coco_json("other_test", str(tmp_path / "coco.json"))
    assert os.listdir(tmp_path) == []


def test_load_sem_seg(tmp_path, caplog):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("b", "a", "alone"):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{name}.jpg")
    for name in ("a", "b"):
        Image.new("L", (4, 4)).save(tmp_path / "labels" / f"{name}.png")
    with caplog.at_level(logging.WARNING):
        records = load_sem_seg(str(tmp_path / "labels"), str(tmp_path / "images"))
    assert records == [
        {
            "file_name": str(tmp_path / "images" / f"{name}.jpg"),
            "sem_seg_file_name": str(tmp_path / "labels" / f"{name}.png"),
        }
        for name in ("a", "b")
    ]
    assert "1 files" in caplog.text and "(alone)" in caplog.text
    with pytest.raises(AssertionError, match=r"No .bmp files"):
        load_sem_seg(str(tmp_path / "labels"), str(tmp_path / "images"), gt_ext="bmp")
