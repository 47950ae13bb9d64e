"""The datasets that are known from the start."""

import importlib
import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin
from detectron2.data.datasets.builtin_meta import (
    COCO_CATEGORIES,
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
    _get_builtin_metadata,
)


def test_coco_categories():
    things = [c for c in COCO_CATEGORIES if c["isthing"]]
    assert (len(things), len(COCO_CATEGORIES)) == (80, 133)
    ids = [c["id"] for c in COCO_CATEGORIES]
    assert ids == sorted(set(ids))
    assert len({c["name"] for c in COCO_CATEGORIES}) == 133
    # The ids that COCO's 91 thing categories have and its data don't.
    assert set(range(1, 91)) - set(ids) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    by_id = {c["id"]: c["name"] for c in COCO_CATEGORIES}
    expected = {
        1: "person",
        13: "stop sign",
        64: "potted plant",
        90: "toothbrush",
        200: "rug-merged",
    }
    assert {i: by_id[i] for i in expected} == expected
    assert len({tuple(c["color"]) for c in COCO_CATEGORIES}) == 133


def test_keypoints():
    assert len(COCO_PERSON_KEYPOINT_NAMES) == 17
    pairs = dict(COCO_PERSON_KEYPOINT_FLIP_MAP)
    assert len(pairs) == 8 and pairs["left_ankle"] == "right_ankle"
    linked = {name for a, b, _ in KEYPOINT_CONNECTION_RULES for name in (a, b)}
    assert linked == set(COCO_PERSON_KEYPOINT_NAMES)


def test_metadata_of_the_splits():
    for split in ("train", "val", "val_100", "test-dev"):
        metadata = MetadataCatalog.get(f"coco_2017_{split}")
        assert len(metadata.thing_classes) == 80
        assert metadata.thing_dataset_id_to_contiguous_id[90] == 79
        assert metadata.evaluator_type == "coco"
    panoptic = MetadataCatalog.get("coco_2017_val_panoptic")
    assert panoptic.thing_dataset_id_to_contiguous_id[1] == 0
    assert panoptic.stuff_dataset_id_to_contiguous_id[92] == 80
    assert panoptic.stuff_classes[132] == "rug-merged"
    assert os.path.basename(panoptic.panoptic_root) == "panoptic_val2017"
    separated = MetadataCatalog.get("coco_2017_val_100_panoptic_separated")
    assert separated.stuff_dataset_id_to_contiguous_id[92] == 1
    assert separated.stuff_classes[53] == "rug" and len(separated.stuff_classes) == 54
    assert os.path.basename(separated.panoptic_root) == "panoptic_val2017_100"
    assert os.path.basename(separated.sem_seg_root) == "panoptic_stuff_val2017_100"
    assert MetadataCatalog.get("keypoints_coco_2017_val").thing_classes == ["person"]
    assert "coco_2014_valminusminival" in DatasetCatalog


def test_metadata_are_not_shared():
    _get_builtin_metadata("coco")["thing_classes"].append("x")
    assert len(_get_builtin_metadata("coco")["thing_classes"]) == 80


def test_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    monkeypatch.setenv("DETECTRON2_DATASETS", "/some/where")
    importlib.reload(builtin)
    metadata = MetadataCatalog.get("coco_2017_train")
    assert metadata.json_file == "/some/where/coco/annotations/instances_train2017.json"
    assert metadata.image_root == "/some/where/coco/train2017"
    monkeypatch.undo()
    assert not MetadataCatalog.get("coco_2017_train").image_root.startswith("/some/where")


def test_formats_of_the_full_package_say_so():
    with pytest.raises(
        ImportError, match=r"register_pascal_voc \(the Pascal VOC data set\) is not"
    ):
        from detectron2.data.datasets import register_pascal_voc  # noqa: F401
