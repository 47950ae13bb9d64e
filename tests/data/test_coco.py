from __future__ import annotations

import copy
from unittest.mock import Mock

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from omegaconf import OmegaConf

from detrex.data import (
    DatasetError,
    DetrDatasetMapper,
    coco_dataset,
    coco_dataset_name,
    register_coco,
)


def test_records(coco, write):
    json_file, root = write(coco)
    dicts = coco_dataset(json_file, root)
    assert [d["image_id"] for d in dicts] == [10, 11, 12]
    assert [d["file_name"] for d in dicts] == [f"{root}/{i}.png" for i in range(3)]
    assert [(a["category_id"], a["bbox"]) for a in dicts[0]["annotations"]] == [
        (1, [1, 2, 10, 12]),
        (0, [20.5, 5, 8, 8]),
    ]
    assert dicts[2]["annotations"] == []


@pytest.mark.parametrize(
    "content", ["<html>404</html>", {"images": [], "annotations": [], "categories": []}]
)
def test_unusable_files_are_named(write, content, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"data\.json"):
        coco_dataset(*write(content))


@pytest.mark.parametrize(
    "error", [KeyError("category_id=99 is unknown"), AssertionError("ids are not unique")]
)
def test_what_a_reader_of_coco_refuses_is_told_of_the_file(coco, write, monkeypatch, error):
    paths = write(coco)
    monkeypatch.setitem(DatasetCatalog.data, register_coco(*paths), Mock(side_effect=error))
    with pytest.raises(DatasetError, match=rf"data\.json cannot be used: {error.args[0]}$"):
        coco_dataset(*paths)


def test_wrong_paths_name_the_override(coco, write, tmp_path):
    json_file, root = write(coco)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json.*json_file="):
        coco_dataset(str(tmp_path / "nowhere.json"), root)
    with pytest.raises(FileNotFoundError, match=r"nodir.*image_root="):
        coco_dataset(json_file, str(tmp_path / "nodir"))


def test_registering_is_idempotent_and_lazy(coco, write, monkeypatch, tmp_path):
    json_file, root = write(coco)
    name = register_coco(json_file, root)
    assert name == coco_dataset_name(json_file, root) == register_coco(json_file, root)
    assert name in DatasetCatalog
    assert MetadataCatalog.get(name).get("thing_classes") is None  # nothing read yet
    assert coco_dataset(json_file, root) == coco_dataset(json_file, root)
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    # Another spelling of the same paths is the same data set.
    monkeypatch.chdir(tmp_path)
    assert register_coco("data.json", "images") == name


def test_names(coco, write):
    json_file, root = write(coco)
    other, _ = write(coco, "other.json")
    assert coco_dataset_name(json_file, root) != coco_dataset_name(other, root)
    assert coco_dataset_name(json_file, root).replace("_", "").isalnum()
    own = register_coco(json_file, root, name=f"mine_{json_file}")
    assert own == f"mine_{json_file}"
    with pytest.raises(DatasetError, match="already belongs to another data set"):
        register_coco(other, root, name=own)


def test_images_without_objects_stay_unless_filtered(coco, write):
    coco["annotations"][2]["iscrowd"] = 1
    json_file, root = write(coco)
    assert len(coco_dataset(json_file, root)) == 3
    filtered = coco_dataset(json_file, root, filter_empty=True)
    assert [d["image_id"] for d in filtered] == [10]
    coco["annotations"].clear()
    with pytest.raises(DatasetError, match="no image has an object"):
        coco_dataset(*write(coco, "empty.json"), filter_empty=True)


def test_evaluation_of_perfect_predictions(coco, write, tmp_path):
    json_file, root = write(coco)
    config = OmegaConf.create(
        {
            "dataset": L(coco_dataset)(json_file=json_file, image_root=root),
            "evaluator": L(COCOEvaluator)(
                dataset_name=L(register_coco)(
                    json_file="${dataset.json_file}", image_root="${dataset.image_root}"
                ),
                output_dir=str(tmp_path / "out"),
            ),
        },
        flags={"allow_objects": True},
    )
    dicts = instantiate(config.dataset)
    evaluator = instantiate(config.evaluator)
    mapper = DetrDatasetMapper([T.NoOpTransform()], is_train=False)
    evaluator.reset()
    for inputs in build_detection_test_loader(dicts, mapper=mapper):
        truth = next(d for d in dicts if d["image_id"] == inputs[0]["image_id"])["annotations"]
        boxes = np.array([a["bbox"] for a in truth], dtype=np.float32).reshape(-1, 4)
        found = Instances((30, 40))
        found.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        found.pred_classes = np.array([a["category_id"] for a in truth], dtype=int)
        found.scores = np.full(len(truth), 0.9)
        evaluator.process(inputs, [{"instances": _tensors(found)}])
    result = evaluator.evaluate()["bbox"]
    assert result["AP"] == pytest.approx(100)
    assert result["AP-cat"] == pytest.approx(100) and result["AP-dog"] == pytest.approx(100)


def _tensors(instances):
    import torch

    instances = copy.copy(instances)
    for key in ("pred_classes", "scores"):
        instances.set(key, torch.as_tensor(instances.get(key)))
    return instances
