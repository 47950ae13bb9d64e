#!/usr/bin/env python3
"""Ground truth as pictures: as it is annotated, or as training sees it.

    python tools/visualize_data.py --config-file config.py --source annotation --output-dir seen/
    python tools/visualize_data.py --config-file config.py --source dataloader --output-dir seen/

"annotation" draws the records of the data set, in their order; --split test those of the test set.
"dataloader" draws what the training loader feeds: images after augmentation, targets after mapping,
in the order and with the random numbers of a training with this train.seed (0 if it has none).

Pictures are named after their source images; a name that is taken gets _2, _3, ..., so nothing is
overwritten. An image that can't be read is named and the others are done; the exit code is then 2.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import ColorMode, Visualizer
from omegaconf import DictConfig
from PIL import Image, ImageShow
from tqdm import tqdm

from detrex.config import load_sections
from detrex.data import dataset_names
from detrex.engine.errors import usage_errors
from detrex.engine.loaders import TrainStream
from detrex.engine.predict import read_picture
from detrex.utils.colors import class_colors
from detrex.utils.paths import unused_path

LEAST_SIDE = 640  # pixels: smaller images are enlarged, or names would cover what they name

Drawn = tuple[str, np.ndarray | None, str]
"""The source image, the picture (height, width, 3) in RGB, and what was wrong with it."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a LazyConfig file")
    parser.add_argument("--source", choices=("annotation", "dataloader"), required=True)
    parser.add_argument("--split", choices=("train", "test"), default="train", help="annotations")
    parser.add_argument("--output-dir", default="./", help="folder for the pictures")
    parser.add_argument("--show", action="store_true", help="open windows instead of writing files")
    parser.add_argument(
        "--num-images", type=int, default=50, help="0 is all annotated images; default: 50"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the options against each other.

    Raises:
        ValueError: they don't fit.
    """
    endless = args.source == "dataloader"
    if args.num_images < endless:
        least = "1, since the loader is endless" if endless else "0, which is all"
        raise ValueError(f"--num-images {args.num_images}: it is at least {least}.")
    if endless and args.split == "test":
        raise ValueError("--split test has annotations alone: --source annotation.")


def metadata_of(node: DictConfig) -> Metadata:
    """What is known of a data set that has been read, with a color for each class."""
    names = dataset_names(node)
    metadata = MetadataCatalog.get(names[0]) if names else Metadata()
    classes = metadata.get("thing_classes")
    if classes and not metadata.get("thing_colors"):
        metadata.set(thing_colors=class_colors(len(classes)))
    return metadata


def enlarged(image: np.ndarray) -> float:
    """The scale at which a picture is drawn."""
    return max(1.0, LEAST_SIDE / max(image.shape[:2]))


def annotated(records: Sequence[dict[str, Any]], metadata: Metadata) -> Iterator[Drawn]:
    """Records as they are."""
    for record in records:
        try:
            image = read_picture(record["file_name"])
        except OSError as e:
            yield record["file_name"], None, str(e)
            continue
        colored = ColorMode.SEGMENTATION if metadata.get("thing_colors") else ColorMode.IMAGE
        visualizer = Visualizer(image, metadata, enlarged(image), colored)
        yield record["file_name"], visualizer.draw_dataset_dict(record).get_image(), ""


def samples(node: DictConfig, seed: int, count: int) -> Iterator[Drawn]:
    """The first ``count`` images that a training loader feeds, with their targets."""
    node.num_workers = 0  # the samples are the same, and errors come as they are
    order = node.mapper.get("img_format") or node.mapper.get("image_format") or "RGB"
    batches = TrainStream(node, seed).loader()
    metadata = metadata_of(node.dataset)
    for sample in itertools.islice(itertools.chain.from_iterable(batches), count):
        pixels = sample["image"].permute(1, 2, 0).numpy()
        image = pixels[:, :, ::-1] if order == "BGR" else pixels
        yield sample["file_name"], draw_targets(image, sample["instances"], metadata), ""


def draw_targets(image: np.ndarray, targets: Any, metadata: Metadata) -> np.ndarray:
    """An augmented image with the targets that the model gets."""
    fields = targets.get_fields()
    classes = fields["gt_classes"].tolist()
    names = metadata.get("thing_classes")
    colors = metadata.get("thing_colors")
    visualizer = Visualizer(image, metadata, enlarged(image))
    masks, keypoints = fields.get("gt_masks"), fields.get("gt_keypoints")
    drawn = visualizer.overlay_instances(
        boxes=fields.get("gt_boxes"),
        labels=[names[c] if names else str(c) for c in classes],
        masks=masks,
        keypoints=keypoints,
        assigned_colors=[[part / 255 for part in colors[c]] for c in classes] if colors else None,
    )
    return drawn.get_image()


def drawn(args: argparse.Namespace) -> tuple[Iterator[Drawn], int]:
    """The pictures that the command line asks for, and how many there are."""
    section = "dataloader.train" if args.source == "dataloader" else f"dataloader.{args.split}"
    wanted = section if args.source == "dataloader" else f"{section}.dataset"
    cfg = load_sections(args.config_file, args.opts, (wanted,), "data to look at")
    node = cfg.dataloader[section.rpartition(".")[2]]
    if args.source == "dataloader":
        return samples(node, max(cfg.train.seed, 0), args.num_images), args.num_images
    records = instantiate(node.dataset)
    records = records[: args.num_images or len(records)]
    return annotated(records, metadata_of(node.dataset)), len(records)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what the command line asks for."""
    args = parser().parse_intermixed_args(arguments)
    with usage_errors():
        check(args)
        pictures, count = drawn(args)
        folder = Path(args.output_dir)
        if not args.show:
            folder.mkdir(parents=True, exist_ok=True)
        failed = draw_all(pictures, count, None if args.show else folder)
    if not args.show:
        print(f"{count - failed} of {count} pictures are in {folder}")
    if failed:
        raise SystemExit(2)


def draw_all(pictures: Iterator[Drawn], count: int, folder: Path | None) -> int:
    """Write pictures into a folder, or show them; returns how many could not be read.

    Raises:
        OSError: no program shows pictures.
    """
    failed = 0
    for source, picture, problem in tqdm(pictures, total=count):
        if picture is None:
            failed += 1
            tqdm.write(f"error: {problem}", file=sys.stderr)
        elif folder is not None:
            path = unused_path(folder / f"{Path(source).stem}.jpg")
            Image.fromarray(picture).save(path, quality=92)
        elif not ImageShow.show(Image.fromarray(picture), title=source):
            raise OSError("no program shows pictures here: leave --show out to write files.")
    return failed


if __name__ == "__main__":
    main()
