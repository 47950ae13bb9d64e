#!/usr/bin/env python3
"""Predictions that an evaluation wrote, beside the truth: predictions left, annotations right.

    python tools/visualize_json_results.py --input output/coco_instances_results.json \
        --output seen/ --dataset coco_2017_val
    python tools/visualize_json_results.py --input output/coco_instances_results.json \
        --output seen/ --annotations val.json --images images/

COCOEvaluator and LVISEvaluator write such a file with dataloader.evaluator.output_dir=DIR. A data
set of one's own is named by its two paths. Pictures are named after their source images; a name
that is taken gets _2, _3, ..., so nothing is overwritten. An image that can't be read is named and
the others are done; the exit code is then 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from detrex.data import coco_dataset, register_coco
from detrex.engine.errors import usage_errors
from detrex.engine.predict import read_picture
from detrex.utils.colors import class_colors
from detrex.utils.paths import unused_path

LEAST_SIDE = 640  # pixels: smaller images are enlarged, or names would cover what they name
HEAD = 24  # pixels above the pictures

Found = dict[str, Any]
"""One prediction of the json."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, metavar="JSON", help="the predictions")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--dataset", default="coco_2017_val", help="a registered data set")
    parser.add_argument("--annotations", metavar="JSON", help="its annotations instead, as COCO's")
    parser.add_argument("--images", metavar="DIR", help="what the annotations' paths begin in")
    parser.add_argument(
        "--conf-threshold", type=float, default=0.5, help="the least score that is drawn"
    )
    parser.add_argument("--num-images", type=int, default=0, help="default: all that have any")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the options.

    Raises:
        ValueError: one is out of range, or lacks another.
    """
    if not 0 <= args.conf_threshold <= 1:
        raise ValueError(f"--conf-threshold {args.conf_threshold}: it is between 0 and 1.")
    if args.num_images < 0:
        raise ValueError(f"--num-images {args.num_images}: it is at least 0, which is all.")
    if (args.annotations is None) != (args.images is None):
        raise ValueError("--annotations and --images are given together or not at all.")


def read_results(path: str) -> dict[int, list[Found]]:
    """Predictions by the id of their image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no list of predictions.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--input {path} does not exist.")
    try:
        results = json.loads(Path(path).read_text())
    except ValueError as e:
        raise ValueError(f"--input {path} is not json: {e}") from e
    needed = {"image_id", "category_id", "score"}
    if not isinstance(results, list) or not all(
        isinstance(r, dict) and needed <= r.keys() and {"bbox", "segmentation"} & r.keys()
        for r in results
    ):
        raise ValueError(
            f"--input {path} is not what COCOEvaluator writes: a list of objects with image_id, "
            "category_id, bbox or segmentation, and score."
        )
    by_image: dict[int, list[Found]] = defaultdict(list)
    for result in results:
        by_image[result["image_id"]].append(result)
    return by_image


def read_dataset(args: argparse.Namespace) -> tuple[list[dict[str, Any]], Metadata]:
    """Records of the data set, and what is known of it, with a color for each class.

    Raises:
        KeyError: no data set has that name.
    """
    if args.annotations:
        records = coco_dataset(args.annotations, args.images)
        name = register_coco(args.annotations, args.images)
    elif args.dataset in DatasetCatalog:
        name, records = args.dataset, DatasetCatalog.get(args.dataset)
    else:
        raise KeyError(
            f"--dataset {args.dataset} is not registered; name the data of your own with "
            "--annotations val.json --images DIR."
        )
    metadata = MetadataCatalog.get(name)
    if not metadata.get("thing_colors"):
        metadata.set(thing_colors=class_colors(len(metadata.thing_classes)))
    return records, metadata


def class_of(metadata: Metadata, source: str) -> Callable[[int], int]:
    """From a category's id in the json to the index of a class.

    Raises:
        ValueError: (by what is returned) the data set has no such category.
    """
    # LVIS, whose ids are one more than the indices, needs no table.
    table: Mapping[int, int] = metadata.get("thing_dataset_id_to_contiguous_id") or {
        i + 1: i for i in range(len(metadata.thing_classes))
    }

    def index(category: int) -> int:
        if category not in table:
            raise ValueError(f"{source} has category {category}, which the data set does not have.")
        return table[category]

    return index


def instances_of(
    found: Sequence[Found], size: tuple[int, int], index: Callable[[int], int], threshold: float
) -> Instances:
    """Predictions of one image of a size (height, width), the surest first.

    Raises:
        ValueError: a category is unknown.
    """
    sure = sorted((f for f in found if f["score"] >= threshold), key=lambda f: -f["score"])
    instances = Instances(size)
    instances.scores = torch.tensor([float(f["score"]) for f in sure])
    instances.pred_classes = torch.tensor([index(f["category_id"]) for f in sure], dtype=torch.long)
    if all("bbox" in f for f in sure):
        boxes = [BoxMode.convert(f["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for f in sure]
        instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    if sure and all("segmentation" in f for f in sure):
        instances.pred_masks = [f["segmentation"] for f in sure]
    return instances


def draw(
    image: np.ndarray,
    record: dict[str, Any],
    found: Instances,
    metadata: Metadata,
    threshold: float,
) -> Image.Image:
    """Predictions and annotations of an image side by side, with what they are above."""
    scale = max(1.0, LEAST_SIDE / max(image.shape[:2]))
    halves = []
    for drawn in ("predictions", "annotations"):
        visualizer = Visualizer(image, metadata, scale, ColorMode.SEGMENTATION)
        if drawn == "predictions":
            halves.append(visualizer.draw_instance_predictions(found).get_image())
        else:
            halves.append(visualizer.draw_dataset_dict(record).get_image())
    height, width = halves[0].shape[:2]
    sheet = Image.new("RGB", (2 * width + 4, HEAD + height), "white")
    truth = len(record.get("annotations", []))
    heads = (f"{len(found)} predictions, score {threshold:g} or more", f"{truth} annotations")
    for head, half, x in zip(heads, halves, (0, width + 4), strict=True):
        sheet.paste(Image.fromarray(half), (x, HEAD))
        font = ImageFont.load_default(14)
        ImageDraw.Draw(sheet).text((x + 6, 3), head, fill="black", font=font)
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what the command line asks for."""
    args = parser().parse_args(arguments)
    with usage_errors():
        check(args)
        results = read_results(args.input)
        records, metadata = read_dataset(args)
        known = {record["image_id"]: record for record in records}
        strangers = [image for image in results if image not in known]
        if strangers:
            raise ValueError(
                f"{args.input} has predictions for {len(strangers)} images that the data set does "
                f"not have, such as image_id {strangers[0]}; it is of another data set."
            )
        shown = [record for record in records if record["image_id"] in results]
        shown = shown[: args.num_images or len(shown)]
        index = class_of(metadata, args.input)
        for found in results.values():  # before anything is drawn
            instances_of(found, (1, 1), index, 0.0)
        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for record in tqdm(shown):
        try:
            image = read_picture(record["file_name"])
        except OSError as e:
            failed += 1
            tqdm.write(f"error: {e}", file=sys.stderr)
            continue
        found = results[record["image_id"]]
        instances = instances_of(found, image.shape[:2], index, args.conf_threshold)
        sheet = draw(image, record, instances, metadata, args.conf_threshold)
        sheet.save(unused_path(folder / f"{Path(record['file_name']).stem}.jpg"), quality=92)
    print(f"{len(shown) - failed} of {len(shown)} pictures are in {folder}")
    if failed:
        raise SystemExit(2)


if __name__ == "__main__":
    main()
