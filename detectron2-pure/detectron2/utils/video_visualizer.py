"""Drawing on the frames of a video, with colors that stay with the instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import Instances
from detectron2.utils.colormap import palette_color
from detectron2.utils.drawable import create_text_labels, to_numpy
from detectron2.utils.drawing import Color, VisImage
from detectron2.utils.visualizer import ColorMode, Visualizer

_FRAMES_TO_REMEMBER = 8
_SAME_MASK_IOU = 0.5
_SAME_BOX_IOU = 0.6


@dataclass(slots=True)
class _DetectedInstance:
    """An instance of an earlier frame.

    Attributes:
        label: its class.
        bbox: XYXY, if there are no masks.
        mask_rle: COCO's RLE, if there are masks.
        color: RGB in [0, 1].
        ttl: for how many more frames it is remembered when it is not seen again.
    """

    label: int
    bbox: Any
    mask_rle: dict[str, Any] | None
    color: Color | None
    ttl: int


class VideoVisualizer:
    """Draws predictions frame by frame.

    An instance keeps its color as long as, from frame to frame, its class stays and its mask (or
    box) overlaps; it may be missing for a few frames.
    """

    def __init__(self, metadata: Any, instance_mode: ColorMode = ColorMode.IMAGE) -> None:
        """
        Args:
            metadata: names and colors of the classes.
            instance_mode: IMAGE or IMAGE_BW for a color per instance, SEGMENTATION for one per
                class where the metadata has them.
        """
        self.metadata = metadata
        self._instance_mode = instance_mode
        self._old_instances: list[_DetectedInstance] = []
        self._num_colors_used = 0

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw what a detector found in the next frame.

        Args:
            frame: RGB in [0, 255], (H, W, 3).
            predictions: Instances with ``pred_classes``, ``pred_boxes`` or ``pred_masks`` or both,
                and perhaps ``scores`` and ``pred_keypoints``.
        """
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        if len(predictions) == 0:
            self._assign_colors([])
            return visualizer.output
        get = predictions.get_fields().get
        classes = to_numpy(get("pred_classes")).tolist()
        boxes = None if get("pred_boxes") is None else visualizer._convert_boxes(get("pred_boxes"))
        masks = None if get("pred_masks") is None else visualizer._convert_masks(get("pred_masks"))
        rles = None if masks is None else _encode([mask.mask for mask in masks])
        found = [
            _DetectedInstance(
                label,
                None if boxes is None else boxes[i],
                None if rles is None else rles[i],
                color=None,
                ttl=_FRAMES_TO_REMEMBER,
            )
            for i, label in enumerate(classes)
        ]
        colors = self._assign_colors(found)
        if self._instance_mode == ColorMode.SEGMENTATION:
            colors = visualizer._class_colors(classes, jitter=False) or colors
        elif self._instance_mode == ColorMode.IMAGE_BW:
            seen = np.any([mask.mask for mask in masks], axis=0) if masks else None
            visualizer.output.reset_image(visualizer._create_grayscale_image(seen))
        names = self.metadata.get("thing_classes")
        return visualizer.overlay_instances(
            boxes=None if masks is not None else boxes,  # boxes would clutter the masks of a video
            masks=masks,
            labels=create_text_labels(classes, get("scores"), names),
            keypoints=get("pred_keypoints"),
            assigned_colors=colors,
            alpha=0.3 if self._instance_mode == ColorMode.IMAGE_BW else 0.5,
        )

    def draw_sem_seg(
        self, frame: np.ndarray, sem_seg: Any, area_threshold: int | None = None
    ) -> VisImage:
        """Draw a semantic segmentation, see :meth:`Visualizer.draw_sem_seg`."""
        return Visualizer(frame, self.metadata).draw_sem_seg(sem_seg, area_threshold)

    def draw_panoptic_seg(
        self,
        frame: np.ndarray,
        panoptic_seg: Any,
        segments_info: list[dict[str, Any]] | None,
        area_threshold: int | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw a panoptic segmentation, see :meth:`Visualizer.draw_panoptic_seg`."""
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        return visualizer.draw_panoptic_seg(panoptic_seg, segments_info, area_threshold, alpha)

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def _assign_colors(self, instances: list[_DetectedInstance]) -> list[Color]:
        """Give instances the colors they had in earlier frames, or new ones; remember them."""
        old = self._old_instances
        overlaps = _overlaps(instances, old)
        seen_again: set[int] = set()
        for new, row in zip(instances, overlaps, strict=True):
            best = max(range(len(old)), key=row.__getitem__, default=None)
            if best is not None and row[best] > 0 and best not in seen_again:
                seen_again.add(best)
                new.color = old[best].color
            else:
                new.color = palette_color(self._num_colors_used)
                self._num_colors_used += 1
        missing = [o for i, o in enumerate(old) if i not in seen_again and o.ttl > 1]
        for instance in missing:
            instance.ttl -= 1
        self._old_instances = instances + missing
        return [instance.color for instance in instances]


def _overlaps(new: list[_DetectedInstance], old: list[_DetectedInstance]) -> np.ndarray:
    """IoU (N, M), zero where the classes differ or it is too small for the same instance."""
    if not new or not old:
        return np.zeros((len(new), len(old)))
    no_crowd = [0] * len(old)
    if new[0].mask_rle is not None and all(o.mask_rle is not None for o in old):
        iou = mask_util.iou([n.mask_rle for n in new], [o.mask_rle for o in old], no_crowd)
        threshold = _SAME_MASK_IOU
    elif any(instance.bbox is None for instance in new + old):
        return np.zeros((len(new), len(old)))
    else:
        boxes = [np.array([x.bbox for x in part], dtype=np.float64) for part in (new, old)]
        for part in boxes:
            part[:, 2:] -= part[:, :2]
        iou = mask_util.iou(*boxes, no_crowd)
        threshold = _SAME_BOX_IOU
    same_label = np.array([[n.label == o.label for o in old] for n in new])
    return np.where(same_label & (np.asarray(iou) > threshold), iou, 0.0)


def _encode(masks: list[np.ndarray]) -> list[dict[str, Any]]:
    return mask_util.encode(np.asfortranarray(np.stack(masks, axis=-1), dtype=np.uint8))
