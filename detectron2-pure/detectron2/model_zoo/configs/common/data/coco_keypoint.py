"""COCO 2017 persons with key points: the detection config for `keypoints_coco_2017_*`."""

from detectron2.data.detection_utils import create_keypoint_hflip_indices

from .coco import dataloader

dataloader.train.dataset.names = "keypoints_coco_2017_train"
dataloader.train.dataset.min_keypoints = 1
dataloader.train.mapper.update(
    use_instance_mask=False,
    use_keypoint=True,
    keypoint_hflip_indices=create_keypoint_hflip_indices("keypoints_coco_2017_train"),
)
dataloader.test.dataset.names = "keypoints_coco_2017_val"
