"""COCO panoptic."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_panoptic
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json, merge_to_panoptic

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
