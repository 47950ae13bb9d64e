"""Scenes of handwritten digits on photographs: what is drawn, and from which scans and photographs.

Neither a digit scan nor a photograph is shared between the two splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

__all__ = ["TRAIN_PHOTOS", "VAL_PHOTOS", "DigitScenes", "Sources", "draw_scene", "load_sources"]

# "package:name"; every one is inside the wheel, none is fetched.
TRAIN_PHOTOS = (
    "sklearn:china.jpg",
    "sklearn:flower.jpg",
    "skimage:astronaut",
    "skimage:coffee",
    "skimage:stereo_motorcycle",
    "skimage:grass",
    "skimage:immunohistochemistry",
    "skimage:brick",
)
VAL_PHOTOS = ("skimage:chelsea", "skimage:rocket", "skimage:gravel", "skimage:camera")

_ASPECT_RATIOS = (1.0, 1.0, 4 / 3, 3 / 4)
# Share of scenes with 0, 1, 2, ... digits.
_COUNT_WEIGHTS = np.array([0.05, 0.15, 0.2, 0.2, 0.2, 0.12, 0.08])
_VISIBLE = 64  # alpha (of 255) from which a pixel counts as ink


@dataclass(frozen=True)
class DigitScenes:
    """Parameters of a set of scenes; the same parameters always give the same files.

    Attributes:
        num_train, num_val: scenes per split.
        size: longer side of a scene in pixels.
        seed: decides everything random.
        min_digit, max_digit: height of a digit as a fraction of ``size``.
        min_contrast: difference of brightness (0..1) between ink and photograph that is aimed for.
        max_overlap: largest part of a digit's box that another digit's box may cover.
        val_fraction: part of the digit scans, per class, that only validation scenes show.
    """

    num_train: int = 2000
    num_val: int = 200
    size: int = 224
    seed: int = 0
    min_digit: float = 0.11
    max_digit: float = 0.36
    min_contrast: float = 0.25
    max_overlap: float = 0.1
    val_fraction: float = 0.25

    def __post_init__(self) -> None:
        if self.num_train < 1 or self.num_val < 1:
            raise ValueError(
                f"num_train and num_val must be at least 1, got {self.num_train}, {self.num_val}."
            )
        if self.size < 64:
            raise ValueError(
                f"size must be at least 64 pixels for legible digits, got {self.size}."
            )
        if not 0 < self.min_digit <= self.max_digit <= 0.7:
            raise ValueError(
                "0 < min_digit <= max_digit <= 0.7 is needed, got "
                f"{self.min_digit}, {self.max_digit}."
            )
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction must lie between 0 and 1, got {self.val_fraction}.")


@dataclass(frozen=True)
class Sources:
    """What one split may use: scans (N 8 8) in 0..1, their classes and indices, photographs."""

    scans: np.ndarray
    classes: np.ndarray
    indices: np.ndarray
    photos: list[Image.Image]


def load_sources(spec: DigitScenes, split: str) -> Sources:
    scans, classes = _load_digits()
    val = np.zeros(len(classes), dtype=bool)
    rng = np.random.default_rng([spec.seed, 2])
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(classes == digit))
        val[members[: round(len(members) * spec.val_fraction)]] = True
    indices = np.flatnonzero(val if split == "val" else ~val)
    names = VAL_PHOTOS if split == "val" else TRAIN_PHOTOS
    return Sources(scans[indices], classes[indices], indices, [_load_photo(n) for n in names])


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise ImportError("digit scenes need scikit-learn: pip install scikit-learn.") from e
    digits = load_digits()
    return digits.images / 16.0, digits.target


def _load_photo(name: str) -> Image.Image:
    package, key = name.split(":")
    try:
        if package == "sklearn":
            from sklearn.datasets import load_sample_image

            array = load_sample_image(key)
        else:
            import skimage.data

            array = getattr(skimage.data, key)()
    except ImportError as e:
        raise ImportError(
            "digit scenes need photographs from scikit-learn and scikit-image: "
            "pip install scikit-learn scikit-image."
        ) from e
    if isinstance(array, tuple):  # the stereo pair: left view, right view, disparity
        array = array[0]
    return Image.fromarray(array).convert("RGB")


def draw_scene(
    rng: np.random.Generator, sources: Sources, spec: DigitScenes
) -> tuple[Image.Image, list[dict[str, Any]]]:
    """One scene and its annotations, without ids."""
    scene = _background(rng, sources.photos, spec.size)
    wanted = rng.choice(len(_COUNT_WEIGHTS), p=_COUNT_WEIGHTS)
    digits: list[dict[str, Any]] = []
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(wanted):
        row = int(rng.integers(len(sources.scans)))
        ink = _render_digit(rng, sources.scans[row], spec)
        box = _find_place(rng, ink.size, scene.size, boxes, spec.max_overlap)
        if box is None:  # crowded already: this scene gets fewer
            continue
        x, y, w, h = box
        color = _ink_color(rng, scene.crop((x, y, x + w, y + h)), ink, spec.min_contrast)
        scene.paste(color, (x, y), ink)
        boxes.append(box)
        digits.append(
            {
                "category_id": int(sources.classes[row]) + 1,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "sample": int(sources.indices[row]),
            }
        )
    return scene, digits


def _background(rng: np.random.Generator, photos: list[Image.Image], size: int) -> Image.Image:
    """A crop of a photograph, mirrored and with changed colors; its longer side is ``size``."""
    photo = photos[rng.integers(len(photos))]
    ratio = _ASPECT_RATIOS[rng.integers(len(_ASPECT_RATIOS))]
    width, height = round(size * min(1, ratio)), round(size * min(1, 1 / ratio))
    largest = min(photo.width / width, photo.height / height)
    scale = largest * rng.uniform(0.4, 1.0)
    crop_w, crop_h = scale * width, scale * height
    x = rng.uniform(0, photo.width - crop_w)
    y = rng.uniform(0, photo.height - crop_h)
    box = (x, y, x + crop_w, y + crop_h)
    scene = photo.resize((width, height), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        scene = scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scene = ImageEnhance.Brightness(scene).enhance(rng.uniform(0.7, 1.2))
    scene = ImageEnhance.Contrast(scene).enhance(rng.uniform(0.6, 1.1))
    return ImageEnhance.Color(scene).enhance(rng.uniform(0.4, 1.4))


def _render_digit(rng: np.random.Generator, scan: np.ndarray, spec: DigitScenes) -> Image.Image:
    """Opacity of one digit's ink, cropped to the ink; log-uniform height, slightly deformed."""
    enlarged = _deform(rng, _smooth_strokes(rng, scan))
    enlarged = enlarged.crop(_ink_bounds(enlarged))
    low, high = np.log(spec.min_digit), np.log(spec.max_digit)
    height = float(np.exp(rng.uniform(low, high))) * spec.size
    aspect = enlarged.width / enlarged.height * rng.uniform(0.9, 1.1)
    width = min(max(height * aspect, 3), 0.7 * spec.size)
    small = enlarged.resize((round(width), round(height)), Image.Resampling.HAMMING)
    opacity = rng.uniform(0.85, 1.0)
    return small.point(lambda alpha: round(alpha * opacity))


def _smooth_strokes(rng: np.random.Generator, scan: np.ndarray) -> Image.Image:
    """Strokes with smooth edges, 160x160, from an 8x8 scan."""
    padded = np.pad(scan, 1).astype(np.float32)
    big = np.asarray(Image.fromarray(padded).resize((160, 160), Image.Resampling.BICUBIC))
    edge = rng.uniform(0.27, 0.38)  # lower: a thicker pen; higher tears the ring of a 0
    t = np.clip((big - edge) / 0.25, 0, 1)
    return Image.fromarray(np.uint8(255 * t * t * (3 - 2 * t) + 0.5))


def _deform(rng: np.random.Generator, ink: Image.Image) -> Image.Image:
    """Rotate by up to 12 degrees and shear, on a canvas large enough to lose nothing."""
    angle = np.deg2rad(rng.uniform(-12, 12))
    shear = rng.uniform(-0.2, 0.2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, shear], [0, 1]])
    canvas = 200
    offset = np.array([ink.width, ink.height]) / 2 - matrix @ np.array([canvas, canvas]) / 2
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return ink.transform(
        (canvas, canvas),
        Image.Transform.AFFINE,
        tuple(float(c) for c in coefficients),
        Image.Resampling.BILINEAR,
    )


def _ink_bounds(ink: Image.Image) -> tuple[int, int, int, int]:
    """Smallest (left, top, right, bottom) that holds all visible ink."""
    visible = np.asarray(ink) >= _VISIBLE
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _find_place(
    rng: np.random.Generator,
    digit_size: tuple[int, int],
    scene_size: tuple[int, int],
    taken: list[tuple[int, int, int, int]],
    max_overlap: float,
) -> tuple[int, int, int, int] | None:
    """A box (x, y, w, h) inside the scene that hardly overlaps those taken; None if none fits."""
    w, h = digit_size
    if w > scene_size[0] or h > scene_size[1]:
        return None
    for _ in range(30):
        x = int(rng.integers(scene_size[0] - w + 1))
        y = int(rng.integers(scene_size[1] - h + 1))
        if all(overlap <= max_overlap for overlap in _covered((x, y, w, h), taken)):
            return x, y, w, h
    return None


def _covered(
    box: tuple[int, int, int, int], others: list[tuple[int, int, int, int]]
) -> Iterator[float]:
    """Intersection of ``box`` with each other box, as a fraction of the smaller of the two."""
    x, y, w, h = box
    for ox, oy, ow, oh in others:
        inter_w = max(0, min(x + w, ox + ow) - max(x, ox))
        inter_h = max(0, min(y + h, oy + oh) - max(y, oy))
        yield inter_w * inter_h / min(w * h, ow * oh)


def _ink_color(
    rng: np.random.Generator, behind: Image.Image, ink: Image.Image, min_contrast: float
) -> tuple[int, int, int]:
    """A random color that stands out from what the ink covers, or the best of thirty such.

    The contrast of a color is the difference of brightness that 85 % of the covered pixels
    exceed: the mean would let half a digit vanish where the background changes.
    """
    covered = np.asarray(behind.convert("L"))[np.asarray(ink) >= _VISIBLE].astype(np.float64)
    covered = covered[:: len(covered) // 256 + 1]
    colors = rng.integers(0, 256, (30, 3))
    brightness = colors @ [0.299, 0.587, 0.114]
    contrast = np.quantile(np.abs(covered[:, None] - brightness), 0.15, axis=0) / 255
    enough = contrast >= min_contrast
    red, green, blue = colors[enough.argmax() if enough.any() else contrast.argmax()]
    return int(red), int(green), int(blue)
