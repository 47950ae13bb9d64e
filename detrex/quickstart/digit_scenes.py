"""Scenes of handwritten digits on photographs: a real detection data set, made on the spot.

The digits are scikit-learn's 1,797 8x8 scans (UCI "Optical Recognition of Handwritten Digits",
written by real people); the photographs are those that the scikit-learn and scikit-image wheels
carry. The result is ordinary image files and COCO json, so whatever trains on it trains on any
COCO-format data set. Neither a digit scan nor a photograph is shared between the two splits.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from detrex.quickstart.drawing import DigitScenes, Sources, draw_scene, load_sources

__all__ = ["make_digit_scenes"]

_FORMAT = 1  # raise it whenever the same parameters would give other files
_MANIFEST = "manifest.json"


def make_digit_scenes(
    output_dir: str | os.PathLike[str],
    num_train: int = 2000,
    num_val: int = 200,
    size: int = 224,
    seed: int = 0,
    progress: bool = True,
    **more: float,
) -> Path:
    """Write ``train/*.jpg``, ``val/*.jpg``, ``train.json``, ``val.json`` to ``output_dir``.

    Boxes are tight around the visible ink. Categories are 1..10, named "0".."9"; every annotation
    also says which scan it shows (``sample``, a row of ``sklearn.datasets.load_digits``). The
    directory appears complete or not at all; a complete one of the same parameters is left as is.

    Args:
        output_dir: directory to create; its parent is created too.
        num_train, num_val, size, seed, more: see :class:`DigitScenes`.
        progress: show a progress bar.

    Returns:
        ``output_dir`` as a path.

    Raises:
        FileExistsError: ``output_dir`` holds something else, or scenes of other parameters.
        ImportError: scikit-learn or scikit-image is not installed.
    """
    spec = DigitScenes(num_train, num_val, size, seed, **more)
    output = Path(output_dir)
    if _is_complete(output, spec):
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        _write_all(scratch, spec, progress)
        scratch.chmod(0o755)
        _move_into_place(scratch, output, spec)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _is_complete(output: Path, spec: DigitScenes) -> bool:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    manifest = output / _MANIFEST
    if not manifest.is_file():
        raise FileExistsError(
            f"{output} exists and is not a set of digit scenes; name a new directory."
        )
    found = json.loads(manifest.read_text())
    wanted = _manifest(spec)
    if found != wanted:
        differing = sorted(k for k in wanted | found if wanted.get(k) != found.get(k))
        raise FileExistsError(
            f"{output} holds digit scenes made with another {', '.join(differing)}; remove it or "
            "name another directory."
        )
    counts = {"train": spec.num_train, "val": spec.num_val}
    for split, count in counts.items():
        present = len(list((output / split).glob("*.jpg")))
        if present != count or not (output / f"{split}.json").is_file():
            raise FileExistsError(
                f"{output} is damaged ({present} of {count} {split} images); remove it and rerun."
            )
    return True


def _manifest(spec: DigitScenes) -> dict[str, Any]:
    return {"format": _FORMAT, **asdict(spec)}


def _move_into_place(scratch: Path, output: Path, spec: DigitScenes) -> None:
    try:
        os.replace(scratch, output)
    except OSError:
        # Another process may have finished the same scenes meanwhile.
        if not _is_complete(output, spec):
            raise


def _write_all(root: Path, spec: DigitScenes, progress: bool) -> None:
    total = spec.num_train + spec.num_val
    with tqdm(total=total, desc="digit scenes", unit="scene", disable=not progress) as bar:
        for split, count in (("train", spec.num_train), ("val", spec.num_val)):
            sources = load_sources(spec, split)
            _write_split(root, split, count, sources, spec, bar)
    (root / _MANIFEST).write_text(json.dumps(_manifest(spec), indent=2) + "\n")


def _write_split(
    root: Path, split: str, count: int, sources: Sources, spec: DigitScenes, bar: tqdm
) -> None:
    (root / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        # One generator per scene: a scene does not depend on how many others are made.
        rng = np.random.default_rng([spec.seed, split == "val", image_id])
        scene, digits = draw_scene(rng, sources, spec)
        name = f"{image_id:06d}.jpg"
        scene.save(root / split / name, quality=92, subsampling=0)
        images.append(
            {"id": image_id, "file_name": name, "height": scene.height, "width": scene.width}
        )
        for digit in digits:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **digit})
        bar.update()
    coco = {
        "info": {
            "description": f"Handwritten digits on photographs, {split} scenes",
            "version": f"{_FORMAT}.0",
            "seed": spec.seed,
        },
        "licenses": [
            {
                "id": 1,
                "name": "Digits: UCI Optical Recognition of Handwritten Digits, CC BY 4.0; "
                "photographs: see the data folders of scikit-image and scikit-learn",
                "url": "https://archive.ics.uci.edu/dataset/80",
            }
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": d + 1, "name": str(d), "supercategory": "digit"} for d in range(10)],
    }
    (root / f"{split}.json").write_text(json.dumps(coco) + "\n")
