import json

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_lvis_json, register_lvis_instances
from detectron2.data.detection_utils import get_fed_loss_cls_weights
from detectron2.structures import BoxMode

SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]


@pytest.fixture
def json_file(tmp_path):
    object_ = {"category_id": 7, "bbox": [1, 1, 4, 4], "segmentation": SQUARE, "area": 16}
    content = {
        "images": [
            {
                "id": 4,
                "height": 10,
                "width": 20,
                "coco_url": "http://images.cocodataset.org/val2017/000000000004.jpg",
                "neg_category_ids": [3],
                "not_exhaustive_category_ids": [7],
            }
        ],
        "annotations": [{"id": 1, "image_id": 4, **object_}],
        "categories": [
            {"id": 7, "name": "zebra", "frequency": "f", "image_count": 16},
            {"id": 3, "name": "abacus", "frequency": "r", "image_count": 4},
        ],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def name(json_file):
    register_lvis_instances("lvis_test", {}, json_file, "coco")
    yield "lvis_test"
    DatasetCatalog.remove("lvis_test")
    MetadataCatalog.remove("lvis_test")


def test_records_have_what_was_looked_for(json_file):
    box = {"bbox": [1, 1, 4, 4], "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
    assert load_lvis_json(json_file, "coco") == [
        {
            "file_name": "coco/val2017/000000000004.jpg",
            "height": 10,
            "width": 20,
            "image_id": 4,
            "neg_category_ids": [3],
            "not_exhaustive_category_ids": [7],
            "annotations": [{**box, "category_id": 1, "segmentation": SQUARE}],
        }
    ]


def test_metadata_come_from_the_file(name, json_file):
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "lvis" and metadata.json_file == json_file
    assert metadata.get("thing_classes") is None
    assert len(DatasetCatalog.get(name)) == 1
    assert metadata.thing_classes == ["abacus", "zebra"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    assert metadata.class_image_count == [
        {"id": 3, "image_count": 4},
        {"id": 7, "image_count": 16},
    ]


def test_federated_loss_reads_the_counts_itself(name):
    assert torch.equal(get_fed_loss_cls_weights(name, 0.5), torch.tensor([2.0, 4.0]))


def test_splits_are_registered():
    assert MetadataCatalog.get("lvis_v1_val").json_file.endswith("lvis/lvis_v1_val.json")
    assert MetadataCatalog.get("lvis_v1_val").image_root.endswith("coco")
    assert {"lvis_v1_train", "lvis_v1_test_dev", "lvis_v1_test_challenge"} <= DatasetCatalog.keys()
