"""Drawing of annotations and predictions."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from detectron2.utils.colormap import palette_color, random_color
from detectron2.utils.drawable import (
    boxes_of,
    keypoints_of,
    largest_first,
    read_label_map,
    read_segment_ids,
    to_numpy,
    union_of,
    values_of,
)
from detectron2.utils.drawable import create_text_labels as _create_text_labels
from detectron2.utils.drawing import Color, Painter, VisImage, middle_of
from detectron2.utils.generic_mask import GenericMask

__all__ = ["ColorMode", "GenericMask", "VisImage", "Visualizer", "random_color"]

_OFF_WHITE = (1.0, 1.0, 240.0 / 255)
_SMALL_OBJECT_AREA = 1000  # square pixels; labels of smaller ones go next to the object
_KEYPOINT_THRESHOLD = 0.05


@enum.unique
class ColorMode(enum.Enum):
    """How predictions are colored.

    IMAGE: a color of its own for every instance.
    SEGMENTATION: the color of the class, where the metadata has one; opaque.
    IMAGE_BW: as IMAGE, on a picture that is gray outside of the instances.
    """

    IMAGE = 0
    SEGMENTATION = 1
    IMAGE_BW = 2


class Visualizer(Painter):
    """Draws boxes, masks, keypoints and labels on one picture.

    All drawing methods return the :class:`VisImage` (also ``output``) and may be called one after
    another. Coordinates are those of the picture given, whatever the scale.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Metadata | None = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
    ) -> None:
        """
        Args:
            img_rgb: RGB in [0, 255], (H, W, 3); (H, W) for gray.
            metadata: names and colors of the classes (``MetadataCatalog.get(name)``); without it,
                classes are shown as numbers.
            scale: of the result.
            instance_mode: how predictions are colored.
        """
        img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.img = np.repeat(img[..., None], 3, axis=-1) if img.ndim == 2 else img
        self.metadata = Metadata() if metadata is None else metadata
        super().__init__(self.img, scale)
        self.cpu_device = torch.device("cpu")
        self._instance_mode = instance_mode
        self._jitter_source = np.random.default_rng(0)

    # ---- whole results ----

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw what a detector found.

        Args:
            predictions: Instances with any of ``pred_boxes``, ``pred_classes``, ``scores``,
                ``pred_masks`` and ``pred_keypoints``.
            jittering: in the mode SEGMENTATION, vary the color within a class a little.
        """
        fields = {
            name: value.to(self.cpu_device) if isinstance(value, torch.Tensor) else value
            for name, value in predictions.get_fields().items()
        }
        classes = fields.get("pred_classes")
        classes = None if classes is None else np.asarray(classes).tolist()
        masks = fields.get("pred_masks")
        if masks is not None:
            masks = self._convert_masks(masks)
        labels = _create_text_labels(
            classes, fields.get("scores"), self.metadata.get("thing_classes")
        )
        alpha, colors = 0.5, None
        if self._instance_mode == ColorMode.SEGMENTATION and classes is not None:
            colors = self._class_colors(classes, jittering)
            alpha = 0.8 if colors else alpha
        elif self._instance_mode == ColorMode.IMAGE_BW:
            self.output.reset_image(self._create_grayscale_image(union_of(masks)))
            alpha = 0.3
        return self.overlay_instances(
            masks=masks,
            boxes=fields.get("pred_boxes"),
            labels=labels,
            keypoints=fields.get("pred_keypoints"),
            assigned_colors=colors,
            alpha=alpha,
        )

    def draw_dataset_dict(self, dic: dict[str, Any]) -> VisImage:
        """Draw the annotations of one image in detectron2's dataset format.

        Args:
            dic: ``annotations``, a semantic map (``sem_seg`` or ``sem_seg_file_name``), a panoptic
                one (``pan_seg`` or ``pan_seg_file_name``, with ``segments_info``), or several.
        """
        annotations = dic.get("annotations") or []
        if annotations:
            classes = [a["category_id"] for a in annotations]
            crowd = [a.get("iscrowd", 0) for a in annotations]
            colors = None
            if self._instance_mode == ColorMode.SEGMENTATION:
                colors = self._class_colors(classes)
            self.overlay_instances(
                labels=_create_text_labels(
                    classes, None, self.metadata.get("thing_classes"), crowd
                ),
                boxes=boxes_of(annotations),
                masks=values_of(annotations, "segmentation", []),
                keypoints=keypoints_of(annotations),
                assigned_colors=colors,
            )
        sem_seg, pan_seg = dic.get("sem_seg"), dic.get("pan_seg")
        if sem_seg is None and "sem_seg_file_name" in dic:
            sem_seg = read_label_map(dic["sem_seg_file_name"])
        if sem_seg is not None:
            self.draw_sem_seg(sem_seg, area_threshold=0, alpha=0.5)
        if pan_seg is None and "pan_seg_file_name" in dic:
            pan_seg = read_segment_ids(dic["pan_seg_file_name"])
        if pan_seg is not None:
            self.draw_panoptic_seg(pan_seg, dic["segments_info"], area_threshold=0, alpha=0.5)
        return self.output

    def draw_sem_seg(
        self, sem_seg: Any, area_threshold: int | None = None, alpha: float = 0.8
    ) -> VisImage:
        """Draw a semantic segmentation.

        Args:
            sem_seg: class of each pixel, (H, W). Classes beyond ``metadata.stuff_classes`` (such as
                255 for "ignore") are left out.
            area_threshold: leave connected parts of fewer square pixels out.
            alpha: opacity.
        """
        sem_seg = np.asarray(sem_seg)
        names = self.metadata.get("stuff_classes")
        for label in np.unique(sem_seg).tolist():
            if names is not None and label >= len(names):
                continue
            self._draw_stuff(sem_seg == label, label, alpha, area_threshold)
        return self.output

    def draw_panoptic_seg(
        self,
        panoptic_seg: Any,
        segments_info: list[dict[str, Any]] | None,
        area_threshold: int | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Draw a panoptic segmentation.

        Args:
            panoptic_seg: segment id of each pixel, (H, W).
            segments_info: dicts with ``id``, ``category_id``, ``isthing`` and perhaps ``score``. If
                None, an id is ``category_id * metadata.label_divisor + instance`` and -1 is void.
            area_threshold: leave connected parts of stuff of fewer square pixels out.
            alpha: opacity.
        """
        panoptic_seg = np.asarray(panoptic_seg)
        if segments_info is None:
            segments_info = self._segments_from_ids(panoptic_seg)
        segments = [(info, panoptic_seg == info["id"]) for info in segments_info]
        segments = [(info, mask) for info, mask in segments if mask.any()]
        if self._instance_mode == ColorMode.IMAGE_BW and segments:
            drawn = np.any([mask for _, mask in segments], axis=0)
            self.output.reset_image(self._create_grayscale_image(drawn))
        things = [(info, mask) for info, mask in segments if info["isthing"]]
        for info, mask in segments:
            if not info["isthing"]:
                self._draw_stuff(mask, info["category_id"], alpha, area_threshold)
        if things:
            infos = [info for info, _ in things]
            classes = [info["category_id"] for info in infos]
            self.overlay_instances(
                masks=[mask for _, mask in things],
                labels=_create_text_labels(
                    classes,
                    values_of(infos, "score"),
                    self.metadata.get("thing_classes"),
                    [info.get("iscrowd", 0) for info in infos],
                ),
                assigned_colors=self._class_colors(classes),
                alpha=alpha,
            )
        return self.output

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        keypoints: Any = None,
        assigned_colors: Sequence[Color] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw N instances, large ones first.

        Args:
            boxes: Boxes, RotatedBoxes, or an array (N, 4) in XYXY or (N, 5) as center, size, angle.
            labels: N strings.
            masks: BitMasks, PolygonMasks, an array (N, H, W), or N masks in any form that
                :class:`GenericMask` takes.
            keypoints: Keypoints or an array (N, K, 3) as x, y, score.
            assigned_colors: N colors; by default all are different.
            alpha: opacity of the masks.
        """
        boxes = None if boxes is None else self._convert_boxes(boxes)
        masks = None if masks is None else self._convert_masks(masks)
        keypoints = None if keypoints is None else self._convert_keypoints(keypoints)
        given = [x for x in (boxes, masks, keypoints, labels, assigned_colors) if x is not None]
        num_instances = len(given[0]) if given else 0
        if any(len(x) != num_instances for x in given):
            raise ValueError(f"Got different numbers of things to draw: {[len(x) for x in given]}.")
        if num_instances == 0:
            return self.output
        if boxes is not None and boxes.shape[1] == 5:
            return self.overlay_rotated_instances(boxes, labels, assigned_colors)
        colors = self._distinct_colors(num_instances, assigned_colors)
        for i in largest_first(boxes, masks, num_instances):
            if masks is not None:
                self._draw_regions(masks[i].regions, colors[i], None, alpha)
            if boxes is not None:
                self.draw_box(boxes[i], alpha=0.9, edge_color=colors[i])
        # names come after all the shapes, so that no shape covers one
        if labels is not None and (boxes is not None or masks is not None):
            for i in largest_first(boxes, masks, num_instances):
                self._draw_label(
                    labels[i],
                    colors[i],
                    None if boxes is None else boxes[i],
                    None if masks is None else masks[i],
                )
        for points in [] if keypoints is None else keypoints:
            self.draw_and_connect_keypoints(points)
        return self.output

    def overlay_rotated_instances(
        self,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        assigned_colors: Sequence[Color] | None = None,
    ) -> VisImage:
        """Draw N rotated boxes (center x, center y, width, height, counter-clockwise degrees)."""
        boxes = np.zeros((0, 5)) if boxes is None else self._convert_boxes(boxes)
        colors = self._distinct_colors(len(boxes), assigned_colors)
        for i in np.argsort(-boxes[:, 2] * boxes[:, 3]):
            label = None if labels is None else labels[i]
            self.draw_rotated_box_with_label(boxes[i], edge_color=colors[i], label=label)
        return self.output

    def draw_and_connect_keypoints(self, keypoints: Any) -> VisImage:
        """Draw the keypoints (K, 3) of one instance.

        They are connected by ``keypoint_connection_rules`` of the metadata, a list of (name, name,
        color in [0, 255]) over its ``keypoint_names``.
        """
        names = self.metadata.get("keypoint_names") or []
        points = np.asarray(keypoints)
        visible = {i: (x, y) for i, (x, y, s) in enumerate(points) if s > _KEYPOINT_THRESHOLD}
        by_name = {name: visible[i] for i, name in enumerate(names) if i in visible}
        for start, end, color in self.metadata.get("keypoint_connection_rules") or []:
            if start in by_name and end in by_name:
                xs, ys = zip(by_name[start], by_name[end], strict=True)
                self.draw_line(xs, ys, color=tuple(c / 255.0 for c in color))
        for point in visible.values():
            self.draw_circle(point, color="r", radius=max(self._default_font_size / 4, 1.5))
        return self.output

    # ---- details ----

    def _draw_stuff(
        self, mask: np.ndarray, label: int, alpha: float, area_threshold: int | None
    ) -> None:
        """Draw the part of a picture that belongs to a class, with its name."""
        names = self.metadata.get("stuff_classes")
        colors = self.metadata.get("stuff_colors")
        self.draw_binary_mask(
            mask,
            color=[c / 255 for c in colors[label]] if colors else palette_color(label),
            edge_color=_OFF_WHITE,
            text=str(label) if names is None else names[label],
            alpha=alpha,
            area_threshold=area_threshold,
        )

    def _draw_label(
        self, label: str, color: Color, box: np.ndarray | None, mask: GenericMask | None
    ) -> None:
        """Write the name of an instance into its corner, or next to it if it is small."""
        if box is None:
            if mask is None or not mask.regions:
                return
            self.draw_text(label, middle_of(mask), color=color, vertical_alignment="center")
            return
        x0, y0, x1, y1 = box
        is_small = (x1 - x0) * (y1 - y0) < _SMALL_OBJECT_AREA or y1 - y0 < 40
        text_height = 1.6 * self._default_font_size * self.output.dpi / 72
        y = y0
        if is_small:
            y = y1 if y1 + text_height <= self.output.height else y0 - text_height
        self.draw_text(
            label,
            (x0, y),
            color=color,
            horizontal_alignment="left",
            font_size=self._label_size(box),
        )

    def _label_size(self, box: np.ndarray) -> float:
        """Smaller letters for smaller objects."""
        relative_height = (box[3] - box[1]) / np.sqrt(self.output.height * self.output.width)
        return float(np.clip(0.75 + relative_height, 0.8, 1.0)) * self._default_font_size

    def _class_colors(self, classes: Sequence[int], jitter: bool = True) -> list[Color] | None:
        """The colors of classes, slightly varied; None if the metadata has none."""
        thing_colors = self.metadata.get("thing_colors")
        if not thing_colors:
            return None
        colors = [tuple(channel / 255 for channel in thing_colors[c]) for c in classes]
        return [self._jitter(color) for color in colors] if jitter else colors

    def _distinct_colors(self, count: int, assigned: Sequence[Color] | None) -> Sequence[Color]:
        """The assigned colors, or else different ones."""
        return [palette_color(i) for i in range(count)] if assigned is None else assigned

    def _jitter(self, color: Color) -> tuple[float, ...]:
        """A color close to the given one."""
        noise = self._jitter_source.uniform(-0.1, 0.1, size=3)
        return tuple(np.clip(np.asarray(color) + noise, 0.0, 1.0).tolist())

    def _create_grayscale_image(self, mask: np.ndarray | None = None) -> np.ndarray:
        """The picture in gray, but for the inside of a mask."""
        gray = self.img.astype("f4").mean(axis=2)
        gray = np.stack([gray] * 3, axis=2)
        if mask is not None:
            gray[mask] = self.img[mask]
        return gray

    def _segments_from_ids(self, panoptic_seg: np.ndarray) -> list[dict[str, Any]]:
        divisor = self.metadata.label_divisor
        things = set(self.metadata.thing_dataset_id_to_contiguous_id.values())
        return [
            {"id": i, "category_id": i // divisor, "isthing": i // divisor in things}
            for i in np.unique(panoptic_seg).tolist()
            if i != -1
        ]

    def _convert_boxes(self, boxes: Any) -> np.ndarray:
        """An array (N, 4) or (N, 5)."""
        array = to_numpy(boxes).astype(np.float64)
        return array.reshape(-1, array.shape[-1] if array.ndim == 2 else 4)

    def _convert_masks(self, masks_or_polygons: Any) -> list[GenericMask]:
        masks = getattr(masks_or_polygons, "polygons", masks_or_polygons)
        masks = masks if isinstance(masks, (list, tuple)) else to_numpy(masks)
        height, width = self.output.height, self.output.width
        return [
            mask
            if isinstance(mask, GenericMask)
            else GenericMask(
                to_numpy(mask) if isinstance(mask, torch.Tensor) else mask, height, width
            )
            for mask in masks
        ]

    def _convert_keypoints(self, keypoints: Any) -> np.ndarray:
        return to_numpy(keypoints)
