"""Registering data sets by name, which reads none of their files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets import load_sem_seg
from detectron2.utils.file_io import PathManager

__all__ = [
    "MetadataFromFiles",
    "datasets_root",
    "fill_metadata",
    "read_json",
    "read_lines",
    "register_dataset",
    "register_sem_seg",
]

logger = logging.getLogger(__name__)

_CLASS_KEYS = frozenset(
    f"{kind}_{what}"
    for kind in ("thing", "stuff")
    for what in ("classes", "colors", "dataset_id_to_contiguous_id")
)
_READERS: dict[str, Callable[[], dict[str, Any]]] = {}  # of what is not known of a data set yet
_REGISTERED: dict[str, dict[str, Any]] = {}  # here, with these facts


class MetadataFromFiles(Metadata):
    """Metadata whose classes are read from the data set's files when they are first asked for."""

    def __getattr__(self, key: str) -> Any:
        if key in _CLASS_KEYS and self.name in _READERS:
            try:
                facts = _READERS[self.name]()
            except (OSError, ValueError) as e:
                raise AttributeError(
                    f"metadata of {self.name!r} has no {key} yet, since it is read from the files "
                    f"of the data set: {e}"
                ) from e
            fill_metadata(self.name, facts)
            if key in self.__dict__:
                return self.__dict__[key]
        return super().__getattr__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or ``default`` if it is not there, nor in the files."""
        try:
            return getattr(self, key)
        except AttributeError:
            return default


def fill_metadata(name: str, facts: dict[str, Any]) -> None:
    """Set the attributes in the metadata of ``name``, which nothing needs to read any more."""
    _READERS.pop(name, None)
    MetadataCatalog.get(name).set(**facts)


def register_dataset(
    name: str,
    load: Callable[[], list[dict[str, Any]]],
    read_classes: Callable[[], dict[str, Any]] | None = None,
    **facts: Any,
) -> None:
    """Make a data set known to detectron2's catalogs.

    What was registered here before is replaced, if its facts differ. A name that belongs to other
    code (the full detectron2 has ADE20K's) stays as it is.

    Args:
        name: of the data set.
        load: reads its records.
        read_classes: reads attributes of its metadata; called when the first of them is needed.
        facts: attributes of its metadata, paths among them.
    """
    if name in DatasetCatalog:
        if name not in _REGISTERED:
            logger.info("dataset %s is registered by other code and stays as it is", name)
            return
        if _REGISTERED[name] == facts:
            return
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        _READERS.pop(name, None)
    known = MetadataCatalog.get(name).as_dict()  # asked for, perhaps, before it was registered
    MetadataCatalog[name] = MetadataFromFiles(**{**known, "name": name})
    MetadataCatalog.get(name).set(**facts)
    DatasetCatalog.register(name, load)
    _REGISTERED[name] = facts
    if read_classes is not None:
        _READERS[name] = read_classes


def register_sem_seg(
    name: str,
    image_root: str,
    sem_seg_root: str,
    read_classes: Callable[[], dict[str, Any]],
    ignore_label: int = 255,
    gt_ext: str = "png",
) -> None:
    """Register a data set of images (jpg) and label images with the same names.

    Args:
        name: of the data set.
        image_root: folder of the images.
        sem_seg_root: folder of the label images.
        read_classes: see ``register_dataset``; gives ``stuff_classes`` at least.
        ignore_label: of pixels without a class.
        gt_ext: extension of the label images.
    """
    register_dataset(
        name,
        partial(_load_sem_seg, image_root, sem_seg_root, gt_ext),
        read_classes,
        image_root=image_root,
        sem_seg_root=sem_seg_root,
        evaluator_type="sem_seg",
        ignore_label=ignore_label,
    )


def _load_sem_seg(image_root: str, sem_seg_root: str, gt_ext: str) -> list[dict[str, Any]]:
    for folder in (image_root, sem_seg_root):
        if not PathManager.isdir(folder):
            raise FileNotFoundError(_missing("folder", folder))
    return load_sem_seg(sem_seg_root, image_root, gt_ext=gt_ext, image_ext="jpg")


def read_json(path: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a json file, which must have ``keys``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no json, or lacks one of the keys.
    """
    if not PathManager.isfile(path):
        raise FileNotFoundError(_missing("file", path))
    with PathManager.open(path, "r") as f:
        try:
            content = json.load(f)
        except ValueError as e:
            raise ValueError(f"{path} cannot be read as json ({e}); get the file again.") from e
    missing = [key for key in keys if not (isinstance(content, dict) and content.get(key))]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}; name another file.")
    return content


def read_lines(path: str) -> list[str]:
    """The lines of a text file, without the empty ones.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not PathManager.isfile(path):
        raise FileNotFoundError(_missing("file", path))
    with PathManager.open(path, "r") as f:
        return [line.strip() for line in f if line.strip()]


def _missing(kind: str, path: str) -> str:
    return (
        f"{kind} {path} does not exist; set DETECTRON2_DATASETS to the folder that holds the data "
        "sets, or prepare this one."
    )


def datasets_root() -> str:
    """Where data sets are: ``$DETECTRON2_DATASETS``, or ``./datasets``."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
