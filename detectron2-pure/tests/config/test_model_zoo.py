"""The configs that come with the package."""

import pytest
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.model_zoo.model_zoo import available_configs


@pytest.mark.parametrize("path", available_configs())
def test_every_config_loads(path):
    assert len(model_zoo.get_config(path)) > 0


def test_names_that_other_configs_ask_for():
    assert set(available_configs()) >= {
        "common/coco_schedule.py",
        "common/data/coco.py",
        "common/data/constants.py",
        "common/optim.py",
        "common/train.py",
    }


def test_data_of_other_tasks():
    panoptic = model_zoo.get_config("common/data/coco_panoptic_separated.py").dataloader
    names = [e.dataset_name for e in panoptic.evaluator]
    assert names == ["coco_2017_val_panoptic_separated"] * 3
    assert panoptic.train.dataset.names == "coco_2017_train_panoptic_separated"
    assert not panoptic.train.dataset.filter_empty
    keypoints = model_zoo.get_config("common/data/coco_keypoint.py").dataloader
    assert instantiate(keypoints.train.mapper).keypoint_hflip_indices[:5] == [0, 2, 1, 4, 3]
    assert keypoints.evaluator.dataset_name == "keypoints_coco_2017_val"
    # They change the detection config that they import, each a copy of its own.
    detection = model_zoo.get_config("common/data/coco.py").dataloader
    assert detection.train.dataset.names == "coco_2017_train"


def test_schedules():
    cfg = model_zoo.get_config("common/coco_schedule.py")
    one, three = instantiate(cfg.lr_multiplier_1x), instantiate(cfg.lr_multiplier_3x)
    # 0.1 and 0.01 from iterations 60k and 80k of 90k, or 60k and 20k before the end.
    assert [round(one(k / 90), 6) for k in (0, 30, 59, 61, 79, 81)] == [0.001, 1, 1, 0.1, 0.1, 0.01]
    assert [round(three(k / 270), 6) for k in (209, 211, 249, 251)] == [1, 0.1, 0.1, 0.01]


def test_unknown_configs():
    with pytest.raises(
        RuntimeError, match=r"common/trian.py not available in Model Zoo!.*train.py"
    ):
        model_zoo.get_config("common/trian.py")
    with pytest.raises(RuntimeError, match="full detectron2"):
        model_zoo.get_checkpoint_url("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml")
    with pytest.raises(RuntimeError, match="full detectron2"):
        model_zoo.get("common/models/mask_rcnn_fpn.py")
