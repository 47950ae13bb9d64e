"""Reading a COCO json and finding out what is wrong with it.

What makes the whole file useless or ambiguous is an error that names the file: no such file,
no JSON, no images, an image without size or name, ids given twice, an annotation without a
category or with a box that is not four numbers. What spoils one object only is left out, counted
and reported once with the first few ids: a box that is not finite or has no area, a category or
an image that the file does not have.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from typing import Any

from detectron2.utils.file_io import PathManager

__all__ = ["CocoFile", "read_json"]

logger = logging.getLogger(__name__)

_SHOWN = 5  # ids per warning


def read_json(path: str) -> Any:
    """Parse a json file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, for example because it was cut off.
    """
    local = PathManager.get_local_path(path)
    try:
        with open(local, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"Annotation file '{path}' does not exist; check the path of the dataset."
        ) from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"'{path}' is not valid JSON (incomplete file?): {e}.") from e


def _describe(image: dict[str, Any]) -> str:
    return f"Image {image.get('id')} ('{image.get('file_name', 'without file_name')}')"


class CocoFile:
    """The content of a COCO json, checked.

    Args:
        path: the file.
        unique_annotation_ids: whether the same annotation id twice is an error.

    Attributes:
        images: by ascending id.
        categories: by ascending id.
        annotations: good ones, by image id.
        num_annotations: how many the file has, good or bad.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no images, or any of the other errors of the module's docstring.
        KeyError: an image without height, width or file_name.
        AssertionError: ids given twice.
    """

    def __init__(self, path: str, unique_annotation_ids: bool = True) -> None:
        self.path = path
        self._skipped: defaultdict[str, list[Any]] = defaultdict(list)
        data = read_json(path)
        self.images = self._read_images(data)
        annotations = self._list_of_dicts(data, "annotations")
        self.num_annotations = len(annotations)
        self.categories = self._read_categories(data, required=len(annotations) > 0)
        if unique_annotation_ids:
            # Some tools write no ids at all; nothing needs them but the evaluation.
            self._check_unique("annotation", (a["id"] for a in annotations if "id" in a))
        self.annotations = self._read_annotations(annotations)
        self._report()

    def _list_of_dicts(self, data: Any, key: str) -> list[dict[str, Any]]:
        if not isinstance(data, dict):
            raise ValueError(f"'{self.path}' is not in COCO format: it holds no JSON object.")
        values = data.get(key) or []
        if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
            raise ValueError(
                f"'{self.path}' is not in COCO format: '{key}' is not a list of objects."
            )
        return values

    def _check_unique(self, what: str, ids: Iterable[Hashable]) -> None:
        twice = [i for i, count in Counter(ids).items() if count > 1]
        assert not twice, (
            f"{what.capitalize()} ids in '{self.path}' are not unique! {len(twice)} appear more "
            f"than once, for example {', '.join(map(str, twice[:_SHOWN]))}."
        )

    def _read_images(self, data: Any) -> list[dict[str, Any]]:
        images = self._list_of_dicts(data, "images")
        if not images:
            if "images" in data:
                raise ValueError(f"'{self.path}' lists no image: its 'images' is empty.")
            has = f"it has {', '.join(map(repr, data))}" if data else "it is empty"
            raise ValueError(
                f"'{self.path}' has no 'images' ({has}); a COCO json lists them under that key."
            )
        for image in images:
            if "coco_url" in image and "file_name" not in image:  # as LVIS has it
                image["file_name"] = "/".join(image["coco_url"].split("/")[-2:])
            missing = [k for k in ("id", "file_name", "height", "width") if k not in image]
            if missing:
                raise KeyError(
                    f"{_describe(image)} in '{self.path}' has no {' and no '.join(missing)}."
                )
            if not (image["height"] and image["width"]):
                raise ValueError(
                    f"{_describe(image)} in '{self.path}' has a size of "
                    f"{image['width']} x {image['height']} pixels."
                )
        self._check_unique("image", (image["id"] for image in images))
        return sorted(images, key=lambda image: image["id"])

    def _read_categories(self, data: Any, required: bool) -> list[dict[str, Any]]:
        categories = self._list_of_dicts(data, "categories")
        if required and not categories:
            raise ValueError(f"'{self.path}' has annotations but no 'categories'.")
        for category in categories:
            if "id" not in category or "name" not in category:
                raise ValueError(f"Category {category} in '{self.path}' has no id or no name.")
        self._check_unique("category", (c["id"] for c in categories))
        return sorted(categories, key=lambda category: category["id"])

    def _read_annotations(
        self, annotations: list[dict[str, Any]]
    ) -> dict[Hashable, list[dict[str, Any]]]:
        images = {image["id"] for image in self.images}
        categories = {category["id"] for category in self.categories}
        result: defaultdict[Hashable, list[dict[str, Any]]] = defaultdict(list)
        for annotation in annotations:
            problem = self._problem_of(annotation, images, categories)
            if problem:
                self._skipped[problem].append(annotation.get("id"))
            else:
                result[annotation["image_id"]].append(annotation)
        return dict(result)

    def _problem_of(
        self, annotation: dict[str, Any], images: set[Any], categories: set[Any]
    ) -> str | None:
        """Why this record has to be left out, or None."""
        for key in ("image_id", "category_id"):
            if key not in annotation:
                raise ValueError(
                    f"Annotation {annotation.get('id')} in '{self.path}' has no {key}."
                )
        if annotation["image_id"] not in images:
            return "belong to images that the file does not list"
        if annotation["category_id"] not in categories:
            return "have a category that the file does not list"
        if "bbox" not in annotation:
            return None  # panoptic-like and keypoint files may do without
        box = annotation["bbox"]
        if not _is_numbers(box, (4, 5)):
            raise ValueError(
                f"Annotation {annotation.get('id')} of image {annotation['image_id']} in "
                f"'{self.path}' has a bbox of {box!r}; it has to be [x, y, width, height]."
            )
        if not all(math.isfinite(x) for x in box):
            return "have a box with infinite or undefined numbers"
        if box[2] <= 0 or box[3] <= 0:
            return "have a box without area"
        return None

    def _report(self) -> None:
        for problem, ids in self._skipped.items():
            shown = ", ".join(map(str, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
            logger.warning(
                f"'{self.path}': left out {len(ids)} of {self.num_annotations} annotations that "
                f"{problem} (ids {shown})."
            )


def _is_numbers(value: Any, lengths: tuple[int, ...]) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) in lengths
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value)
    )
