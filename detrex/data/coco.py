"""COCO-format data sets from nothing but their paths.

In a config::

    dataloader.train.dataset = L(coco_dataset)(json_file="train.json", image_root="images")
    dataloader.test.dataset = L(coco_dataset)(json_file="val.json", image_root="images")
    dataloader.evaluator = L(COCOEvaluator)(
        dataset_name=L(register_coco)(
            json_file="${dataloader.test.dataset.json_file}",
            image_root="${dataloader.test.dataset.image_root}",
        )
    )

so that ``dataloader.train.dataset.json_file=...`` on the command line is all that a data set of
one's own needs. Class names come from the json's categories, in the order of their ids.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.file_io import PathManager

__all__ = ["DatasetError", "coco_dataset", "coco_dataset_name", "register_coco"]

logger = logging.getLogger(__name__)

_KEEPING: ContextVar[bool] = ContextVar("keeping", default=False)
_KEPT: dict[str, tuple[Any, list[dict[str, Any]]]] = {}  # until they are asked for once


class DatasetError(ValueError):
    """A data set cannot be used as it is; the message names the file, the record and a way out."""


def coco_dataset(
    json_file: str,
    image_root: str,
    name: str | None = None,
    filter_empty: bool = False,
) -> list[dict[str, Any]]:
    """Register a COCO-format data set and return its dataset dicts for a data loader.

    Args:
        json_file: annotations in COCO's object detection format.
        image_root: directory that the json's ``file_name`` entries are relative to.
        name: name in the catalogs; by default made from the two paths.
        filter_empty: leave out images without an object to learn from (none, or only crowds).
            They are negatives worth training on, so they stay by default.

    Raises:
        FileNotFoundError: ``json_file`` or ``image_root`` does not exist.
        DatasetError: ``name`` is taken by another data set, the json has no images or cannot be
            read, or ``filter_empty`` left no image.
    """
    try:
        dicts = _read(register_coco(json_file, image_root, name))
    except (AssertionError, KeyError, ValueError) as e:
        if isinstance(e, DatasetError):
            raise
        # What is wrong, readers of COCO say more or less well, and not always in which file.
        reason = e.args[0] if len(e.args) == 1 else e
        raise DatasetError(f"{json_file} cannot be used: {reason}") from e
    if not dicts:
        raise DatasetError(f"{json_file} has no images; name another file.")
    if not filter_empty:
        return dicts
    kept = [d for d in dicts if any(not a.get("iscrowd", 0) for a in d["annotations"])]
    if not kept:
        raise DatasetError(
            f"{json_file}: no image has an object; filter_empty=False keeps them anyway."
        )
    logger.info("%s: left out %d images without objects", json_file, len(dicts) - len(kept))
    return kept


@contextmanager
def kept_for_the_loader() -> Iterator[None]:
    """Keep what is read inside, so that the loader neither reads it again nor warns of it twice."""
    token = _KEEPING.set(True)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def _read(name: str) -> list[dict[str, Any]]:
    """The records of a registered data set, which may have been read in a check."""
    stat = os.stat(PathManager.get_local_path(MetadataCatalog.get(name).json_file))
    version = (stat.st_mtime_ns, stat.st_size)
    kept_version, kept = _KEPT.pop(name, (None, None))
    dicts = kept if kept is not None and kept_version == version else DatasetCatalog.get(name)
    if _KEEPING.get():
        _KEPT[name] = (version, dicts)
    return dicts


def register_coco(json_file: str, image_root: str, name: str | None = None) -> str:
    """Make a COCO-format data set known to detectron2's catalogs and return its name.

    Calling it again with the same paths does nothing; the json is read when the data set is used.

    Raises:
        FileNotFoundError: ``json_file`` or ``image_root`` does not exist.
        DatasetError: ``name`` is taken by another data set.
    """
    json_path, root = _absolute(json_file), _absolute(image_root)
    if not PathManager.isfile(json_path):
        raise FileNotFoundError(
            f"annotation file {json_file!r} does not exist; set json_file of the dataset, for "
            "example dataloader.train.dataset.json_file=path/to/train.json."
        )
    if not PathManager.isdir(root):
        raise FileNotFoundError(
            f"image directory {image_root!r} does not exist; set image_root of the dataset, for "
            "example dataloader.train.dataset.image_root=path/to/images."
        )
    name = name or coco_dataset_name(json_file, image_root)
    if name not in DatasetCatalog:
        register_coco_instances(name, {}, json_path, root)
        return name
    metadata = MetadataCatalog.get(name)
    if (metadata.get("json_file"), metadata.get("image_root")) != (json_path, root):
        raise DatasetError(
            f"the name {name!r} already belongs to another data set; give this one another name."
        )
    return name


def coco_dataset_name(json_file: str, image_root: str) -> str:
    """The name under which the two paths are registered; safe in file names."""
    json_path, root = _absolute(json_file), _absolute(image_root)
    digest = hashlib.sha256(f"{json_path}\n{root}".encode()).hexdigest()[:8]
    stem = "_".join(Path(json_path).with_suffix("").parts[-2:])
    return f"{''.join(c if c.isalnum() else '_' for c in stem)}_{digest}"


def _absolute(path: str) -> str:
    path = os.fspath(path)
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))
