"""Pictures in, detections out, through the preprocessing that an evaluation has.

    predictor = load_predictor("config.py", ["train.init_checkpoint=model_final.pth"])
    for seen in predict_files(predictor, find_pictures(["photos", "more/*.jpg"])):
        print(seen.path, seen.error or seen.instances)

Letters: ``H``, ``W`` height and width of a picture.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from detrex.config import load_sections, select_device
from detrex.engine.build import build_ema, checkpoint_to_evaluate, fill_model
from detrex.engine.preflight import check_init_checkpoint

__all__ = [
    "Predictor",
    "Seen",
    "find_pictures",
    "load_predictor",
    "predict_files",
    "read_picture",
    "resize_for_test",
]

# What is taken from a folder; a file that is named may be whatever Pillow reads.
_ENDINGS = frozenset(
    [".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jp2", ".pgm", ".png", ".ppm"]
    + [".tif", ".tiff", ".webp"]
)

Augmentations = Sequence[T.Augmentation | T.Transform]


def resize_for_test(min_size: int = 800, max_size: int = 1333) -> list[T.Augmentation]:
    """What DETRs do to a picture at evaluation.

    Args:
        min_size: the shorter side afterwards, in pixels.
        max_size: the most that the longer one may have; then it decides.
    """
    return [T.ResizeShortestEdge(short_edge_length=min_size, max_size=max_size)]


class Predictor:
    """A trained model that takes pictures as they are.

    Args:
        model: a detectron2-style detector: list of dicts in, list of ``{"instances": Instances}``
            out. It is put into evaluation mode.
        augmentation: what its evaluation does to a picture; by default ``resize_for_test()``.
        img_format: the channels' order that the model expects, "RGB" or "BGR".
        class_names: by class index, if they are known.

    Raises:
        ValueError: any other ``img_format``.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentation: Augmentations | None = None,
        img_format: str = "RGB",
        class_names: Sequence[str] | None = None,
    ) -> None:
        if img_format not in ("RGB", "BGR"):
            raise ValueError(f"img_format={img_format!r} is neither RGB nor BGR.")
        self.model = model.eval()
        steps = resize_for_test() if augmentation is None else augmentation
        self.augmentation = T.AugmentationList(list(steps))
        self.img_format = img_format
        self.class_names = None if class_names is None else list(class_names)

    def __call__(self, image: np.ndarray) -> Instances:
        """Detections in one picture.

        Args:
            image: ``(H, W, 3)`` uint8, RGB.

        Returns:
            on the CPU, with ``pred_boxes`` (pixels of the picture, xyxy), ``scores`` and
            ``pred_classes``, and whatever else the model predicts.
        """
        return self.predict([image])[0]

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Detections in several pictures of any sizes, which the model sees as one batch."""
        outputs = self.model([self.prepare(image) for image in images])
        return [output["instances"].to("cpu") for output in outputs]

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        """The model's input of a picture ``(H, W, 3)``, uint8, RGB: what a test loader gives.

        Raises:
            ValueError: the array is no such picture.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"a picture is an array (height, width, 3) of uint8, got {image.shape} of "
                f"{image.dtype}."
            )
        seen = T.AugInput(image if self.img_format == "RGB" else image[:, :, ::-1])
        self.augmentation(seen)
        pixels = np.ascontiguousarray(seen.image.transpose(2, 0, 1))
        height, width = image.shape[:2]
        return {"image": torch.as_tensor(pixels), "height": height, "width": width}


class Seen(NamedTuple):
    """A picture file and what a predictor found in it, or why it could not be read."""

    path: Path
    image: np.ndarray | None
    """``(H, W, 3)`` uint8, RGB, upright."""
    instances: Instances | None
    error: str = ""


def load_predictor(
    config_file: str,
    overrides: Sequence[str] = (),
    min_size: int | None = None,
    max_size: int | None = None,
    img_format: str | None = None,
) -> Predictor:
    """The trained model of a config, with the preprocessing of the config's test loader.

    Args:
        config_file: a path, or the name of a config that comes with detrex. Only its ``model`` is
            needed; the data need not be there.
        overrides: ``key=value``; ``train.init_checkpoint`` names the weights, without it the last
            checkpoint of ``train.output_dir`` is taken. ``train.device`` says where to run.
        min_size, max_size: resize to these instead (:func:`resize_for_test`).
        img_format: "RGB" or "BGR", instead of the config's.

    Raises:
        FileNotFoundError: config or weights do not exist.
        KeyError, ValueError: the config or an override can't be used.
        CheckpointError: the weights aren't those of the model.
    """
    cfg = load_sections(config_file, overrides, ("model",), "a model")
    cfg.train.device = str(select_device(cfg.train.device))
    check_init_checkpoint(cfg.train.init_checkpoint)
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
    augmentation = _augmentation(mapper, min_size, max_size)
    img_format = img_format or _first(mapper, "img_format", "image_format") or "RGB"
    path = checkpoint_to_evaluate(cfg)
    model, report = fill_model(cfg, path)
    report.check_complete(path)
    averages = cfg.train.model_ema
    ema = build_ema(cfg, model, path) if averages.use_ema_weights_for_eval_only else None
    if ema is not None:
        model.load_state_dict(ema.state_dict())
    return Predictor(model, augmentation, img_format, report.source_classes)


def find_pictures(inputs: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Picture files by their paths, patterns and folders, each once, in the order given.

    Args:
        inputs: files (which are not looked at), folders (all pictures directly in them, by name)
            or patterns such as ``photos/*.jpg`` and ``photos/**/*.png``.

    Raises:
        FileNotFoundError: a folder or a pattern has no pictures.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        given = os.fspath(name)
        path = Path(given).expanduser()
        if path.is_dir():
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in _ENDINGS)
        elif path.exists() or not glob.has_magic(given):
            files = [path]
        else:
            files = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not files:
            raise FileNotFoundError(
                f"{given!r} has no pictures; name files, a folder of them, or a pattern in quotes "
                "such as 'photos/*.jpg'."
            )
        found.update(dict.fromkeys(files))
    return list(found)


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """``(H, W, 3)`` uint8, RGB, upright.

    Raises:
        OSError: the file does not exist or is no picture; the message names it.
    """
    try:
        return np.asarray(utils.read_image(os.fspath(path), format="RGB"))
    except FileNotFoundError as e:
        raise FileNotFoundError(f"picture {path} does not exist.") from e
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        # Pillow raises SyntaxError for a broken PNG.
        reason = getattr(e, "strerror", None) or "it is damaged, or no picture"
        raise OSError(f"picture {path} cannot be read: {reason}.") from e


def predict_files(predictor: Predictor, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Seen]:
    """Detections in picture files, one after the other; one that can't be read says why."""
    for path in map(Path, paths):
        try:
            image = read_picture(path)
        except OSError as e:
            yield Seen(path, None, None, str(e))
        else:
            yield Seen(path, image, predictor(image))


def _augmentation(
    mapper: DictConfig | None, min_size: int | None, max_size: int | None
) -> Augmentations:
    steps = _first(mapper, "augmentation", "augmentations")
    if min_size is None and max_size is None and steps is not None:
        return list(instantiate(steps))
    sizes = {"min_size": min_size, "max_size": max_size}
    return resize_for_test(**{name: size for name, size in sizes.items() if size is not None})


def _first(node: DictConfig | None, *names: str) -> Any:
    """The value of the first name that a node has: mappers of detrex and detectron2 differ."""
    values = (None if node is None else node.get(name) for name in names)
    return next((value for value in values if value is not None), None)
