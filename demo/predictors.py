"""Detections drawn on pictures and videos, by the names that detectron2's demo has.

What finds them is :class:`detrex.engine.predict.Predictor`; arrays here are BGR, as OpenCV's are.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer
from torch import nn

from detrex.engine.predict import Predictor, resize_for_test
from detrex.utils.colors import class_colors

__all__ = ["DefaultPredictor", "VisualizationDemo"]


class DefaultPredictor:
    """A model that takes single pictures in OpenCV's order of channels.

    Args:
        model: a detector, or a ``Predictor``, which brings its own preprocessing.
        min_size_test, max_size_test: the size that pictures get.
        img_format: the channels' order that the model expects, "RGB" or "BGR".
        metadata_dataset: the name of a registered data set, or its metadata: names of the classes.
    """

    def __init__(
        self,
        model: nn.Module | Predictor,
        min_size_test: int = 800,
        max_size_test: int = 1333,
        img_format: str = "RGB",
        metadata_dataset: str | Metadata = "coco_2017_val",
    ) -> None:
        if not isinstance(model, Predictor):
            model = Predictor(model, resize_for_test(min_size_test, max_size_test), img_format)
        self.predictor = model
        self.model = model.model
        self.metadata = _for_all_classes(metadata_dataset, self.model)

    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """
        Args:
            original_image: (height, width, 3) uint8, BGR.

        Returns:
            ``{"instances": Instances}`` on the CPU, in pixels of the picture.
        """
        return {"instances": self.predictor(original_image[:, :, ::-1])}


class VisualizationDemo:
    """Finds objects and draws them.

    Args:
        model, min_size_test, max_size_test, img_format, metadata_dataset: of ``DefaultPredictor``.
        instance_mode: how detections are colored.
        parallel: let every GPU have a copy of the model and a frame of a video of its own.
    """

    def __init__(
        self,
        model: nn.Module | Predictor,
        min_size_test: int = 800,
        max_size_test: int = 1333,
        img_format: str = "RGB",
        metadata_dataset: str | Metadata = "coco_2017_val",
        instance_mode: ColorMode = ColorMode.IMAGE,
        parallel: bool = False,
    ) -> None:
        self.predictor = DefaultPredictor(
            model, min_size_test, max_size_test, img_format, metadata_dataset
        )
        self.metadata = self.predictor.metadata
        self.instance_mode = instance_mode
        self.parallel = parallel

    def run_on_image(
        self, image: np.ndarray, threshold: float = 0.5
    ) -> tuple[dict[str, Any], VisImage]:
        """Detections in a picture (BGR), and the picture with those of at least ``threshold``."""
        predictions = self.predictor(image)
        return predictions, self.draw(image, predictions["instances"], threshold)

    def draw(self, image: np.ndarray, instances: Instances, threshold: float = 0.5) -> VisImage:
        """The picture (BGR) with the detections whose score is at least ``threshold``."""
        visualizer = Visualizer(image[:, :, ::-1], self.metadata, instance_mode=self.instance_mode)
        return visualizer.draw_instance_predictions(_sure(instances, threshold))

    def run_on_video(self, video: Any, threshold: float = 0.5) -> Iterator[np.ndarray]:
        """Each frame with its detections, BGR.

        Args:
            video: a ``cv2.VideoCapture``, or whatever has its ``read()``.
            threshold: detections of a lower score are left out.
        """
        visualizer = VideoVisualizer(self.metadata, self.instance_mode)
        for frame, instances in self._detections(_frames(video)):
            found = _sure(instances, threshold)
            drawn = visualizer.draw_instance_predictions(frame[:, :, ::-1], found)
            yield drawn.get_image()[:, :, ::-1]

    def _detections(self, frames: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, Instances]]:
        predictors = self._predictors()
        if len(predictors) == 1:
            for frame in frames:
                yield frame, self.predictor(frame)["instances"]
            return
        with ThreadPoolExecutor(len(predictors)) as pool:
            pending: deque[Any] = deque()
            for number, frame in enumerate(frames):
                predictor = predictors[number % len(predictors)]
                pending.append((frame, pool.submit(predictor, frame)))
                if len(pending) > len(predictors):
                    frame, found = pending.popleft()
                    yield frame, found.result()["instances"]
            for frame, found in pending:
                yield frame, found.result()["instances"]

    def _predictors(self) -> list[DefaultPredictor]:
        """One per GPU; each thread uses its own."""
        count = torch.cuda.device_count() if self.parallel else 1
        predictors = [self.predictor]
        for device in range(1, count):
            other = copy.deepcopy(self.predictor)
            other.model.to(f"cuda:{device}")
            predictors.append(other)
        return predictors


def _frames(video: Any) -> Iterator[np.ndarray]:
    while True:
        more, frame = video.read()
        if not more:
            return
        yield frame


def _sure(instances: Instances, threshold: float) -> Instances:
    return instances[instances.scores >= threshold]


def _for_all_classes(metadata: str | Metadata, model: nn.Module) -> Metadata:
    """Metadata with a name, or else the number, and a color for all classes of a model."""
    known = MetadataCatalog.get(metadata) if isinstance(metadata, str) else metadata
    names, colors = (list(known.get(f"thing_{what}") or []) for what in ("classes", "colors"))
    count = max(getattr(model, "num_classes", 0), len(names))
    if len(names) == len(colors) == count:
        return known
    names += [str(i) for i in range(len(names), count)]
    return Metadata(
        thing_classes=names, thing_colors=[*colors, *class_colors(count)[len(colors) :]]
    )
