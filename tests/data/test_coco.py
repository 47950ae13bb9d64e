from __future__ import annotations

import copy

import numpy as np
import pycocotools.mask as mask_util
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
    load_coco,
    register_coco,
)


def test_records(coco, write):
    json_file, root = write(coco)
    data = load_coco(json_file, root)
    assert data.class_names == ["cat", "dog"]  # by category id
    assert data.contiguous_ids == {3: 0, 7: 1}
    assert [d["image_id"] for d in data.dicts] == [10, 11, 12]
    assert [d["file_name"] for d in data.dicts] == [f"{root}/{i}.png" for i in range(3)]
    first = data.dicts[0]
    assert (first["height"], first["width"]) == (30, 40)
    assert first["annotations"] == [
        {"bbox": [1, 2, 10, 12], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0},
        {"bbox": [20.5, 5, 8, 8], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0},
    ]
    assert data.dicts[2]["annotations"] == []
    assert data.dropped == {} and data.ready_for_evaluation


def test_segmentations(coco, write):
    triangle = [1.0, 1, 9, 1, 5, 9]
    counts = {"size": [30, 40], "counts": [0, 5, 1195]}
    coco["annotations"][0]["segmentation"] = [triangle, [1, 1, 2, 2]]
    coco["annotations"][1]["segmentation"] = counts
    coco["annotations"][2]["segmentation"] = [[1, 2]]
    first, second, _ = load_coco(*write(coco)).dicts
    assert first["annotations"][0]["segmentation"] == [triangle]
    decoded = mask_util.decode(first["annotations"][1]["segmentation"])
    expected = np.zeros(1200, np.uint8)
    expected[:5] = 1
    np.testing.assert_array_equal(decoded, expected.reshape(30, 40, order="F"))
    assert "segmentation" not in second["annotations"][0]  # the box stays


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([5, 5, 0, 4], "with a box of zero area"),
        ([5, 5, 4, -1], "with a box of zero area"),
        ([5, 5, float("nan"), 4], "with a box that is not finite"),
        ([40, 5, 4, 4], "with a box outside the image"),
        ([-4, 5, 4, 4], "with a box outside the image"),
        ([5, 5, 4], "without a box of four numbers"),
        (None, "without a box of four numbers"),
    ],
)
def test_useless_boxes_are_left_out_and_named(coco, write, caplog, bbox, reason):
    coco["annotations"][1]["bbox"] = bbox
    json_file, root = write(coco)
    data = load_coco(json_file, root)
    assert data.dropped == {reason: [f"annotation 2 of {root}/0.png"]}
    assert [len(d["annotations"]) for d in data.dicts] == [1, 1, 0]
    coco_dataset(json_file, root)
    assert f"left out 1 annotations {reason}: annotation 2 of {root}/0.png" in caplog.text


def test_annotations_of_unlisted_images_are_named(coco, write):
    coco["annotations"][2]["image_id"] = 99
    assert load_coco(*write(coco)).dropped == {
        "of an image that the file does not list": ["annotation 3"]
    }


def _without(key):
    def change(content):
        del content[key]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=4), "annotation 1 of .*0.png has "
         r"category_id 4, but the file defines only 3, 7"),
        (lambda c: c["images"][1].update(id=10), "two images have the id 10"),
        (lambda c: c["images"][1].pop("height"), "lacks height"),
        (lambda c: c["categories"][1].update(id=7), "two categories have the same id"),
        (lambda c: c["categories"][1].pop("name"), "needs an integer 'id' and a 'name'"),
        (lambda c: c["images"].clear(), "holds no images"),
        (lambda c: c["categories"].clear(), "holds no categories"),
        (_without("images"), "no list 'images'"),
        (_without("annotations"), "no list 'annotations'"),
    ],
)  # fmt: skip
def test_unusable_files_are_refused(coco, write, change, message):
    change(coco)
    with pytest.raises(DatasetError, match=message) as error:
        load_coco(*write(coco))
    assert "data.json" in str(error.value)


def test_not_json(write):
    with pytest.raises(DatasetError, match=r"data\.json is not a json file"):
        load_coco(*write("<html>404</html>"))
    with pytest.raises(DatasetError, match="not in COCO's detection format"):
        load_coco(*write([1, 2]))


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


def _incomplete(coco):
    """As labelling tools write it: no area, no iscrowd, ids from 0."""
    for index, annotation in enumerate(coco["annotations"]):
        del annotation["area"], annotation["iscrowd"]
        annotation["id"] = index
    del coco["info"]


@pytest.mark.parametrize("complete", [True, False])
def test_evaluation_of_perfect_predictions(coco, write, tmp_path, complete):
    if not complete:
        _incomplete(coco)
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
