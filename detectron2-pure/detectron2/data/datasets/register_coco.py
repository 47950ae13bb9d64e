"""Old home of the COCO registration functions."""

from detectron2.data.datasets.coco import register_coco_instances
from detectron2.data.datasets.coco_panoptic import register_coco_panoptic_separated

__all__ = ["register_coco_instances", "register_coco_panoptic_separated"]
