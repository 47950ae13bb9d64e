"""COCO panoptic."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_panoptic, register_coco_panoptic_separated
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json, merge_to_panoptic
from PIL import Image

META = {
    "thing_dataset_id_to_contiguous_id": {5: 0},
    "stuff_dataset_id_to_contiguous_id": {90: 1},
}


def write(tmp_path, category):
    segments = [{"id": 1, "category_id": 5, "area": 3}, {"id": 2, "category_id": category}]
    path = tmp_path / "panoptic.json"
    annotation = {"file_name": "0001.png", "image_id": 1, "segments_info": segments}
    path.write_text(json.dumps({"annotations": [annotation]}))
    return str(path)


def test_load(tmp_path):
    assert load_coco_panoptic_json(write(tmp_path, 90), "images", "segments", META) == [
        {
            "file_name": "images/0001.jpg",
            "image_id": 1,
            "pan_seg_file_name": "segments/0001.png",
            "segments_info": [
                {"id": 1, "category_id": 0, "isthing": True, "area": 3},
                {"id": 2, "category_id": 1, "isthing": False},
            ],
        }
    ]


def test_unknown_category_names_file_and_segment(tmp_path):
    with pytest.raises(ValueError, match=r"Segment 2 in .*panoptic.json' has category 91"):
        load_coco_panoptic_json(write(tmp_path, 91), "images", "segments", META)


def test_register(tmp_path):
    try:
        for _ in range(2):
            register_coco_panoptic("pan_test", META, "images", "segments", write(tmp_path, 90))
        assert len(DatasetCatalog.get("pan_test")) == 1
        assert MetadataCatalog.get("pan_test").evaluator_type == "coco_panoptic_seg"
    finally:
        DatasetCatalog.remove("pan_test")
        MetadataCatalog.remove("pan_test")


def test_merge():
    things = [{"file_name": "b", "annotations": [1]}, {"file_name": "a", "annotations": []}]
    stuff = [
        {"file_name": "a", "sem_seg_file_name": "a.png"},
        {"file_name": "b", "sem_seg_file_name": "b.png"},
    ]
    assert merge_to_panoptic(things, stuff) == [
        {"file_name": "b", "annotations": [1], "sem_seg_file_name": "b.png"},
        {"file_name": "a", "annotations": [], "sem_seg_file_name": "a.png"},
    ]
    with pytest.raises(KeyError, match="c has no semantic"):
        merge_to_panoptic([{"file_name": "c"}], stuff)


def test_separated(tmp_path):
    """Instances and stuff, each from its own files, joined by image."""
    for folder in ("images", "stuff"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.jpg")
    Image.new("L", (4, 4)).save(tmp_path / "stuff" / "a.png")
    instances = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}],
        "categories": [{"id": 5, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 2, 2]}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    names = ["pan_test_separated", "pan_test_stuffonly"]
    try:
        for _ in range(2):
            register_coco_panoptic_separated(
                "pan_test",
                {"stuff_classes": ["things", "sky"]},
                str(tmp_path / "images"),
                "segments",
                "panoptic.json",
                str(tmp_path / "stuff"),
                str(tmp_path / "instances.json"),
            )
        (record,) = DatasetCatalog.get(names[0])
        (stuff,) = DatasetCatalog.get(names[1])
        assert record["sem_seg_file_name"] == stuff["sem_seg_file_name"]
        assert [a["category_id"] for a in record["annotations"]] == [0]
        assert MetadataCatalog.get(names[0]).thing_classes == ["thing"]
        assert MetadataCatalog.get(names[1]).evaluator_type == "sem_seg"
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
