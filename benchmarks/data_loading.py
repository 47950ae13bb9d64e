"""Images per second that DETR's augmentation and the loader prepare, beside torchvision's.

    python benchmarks/data_loading.py --output data_loading.json

Photographs with handwritten digits of 640 pixels (made on the spot, which needs the extra
"quickstart"), half of them cropped between two resizes as DETR does, on to 480 to 800 pixels. The
peer is torchvision's transforms v2 of the same kind, in torch's own loader.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from common import compare, options, write
from detectron2.config import instantiate
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from detrex.benchmark import Work, prepare
from detrex.config import get_config
from detrex.data import coco_dataset
from detrex.engine.loaders import TrainStream
from detrex.quickstart import make_digit_scenes

SHORT_EDGES = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
Record = dict[str, Any]


def torchvision_augmentation() -> Callable[..., Any]:
    """What ``configs/common/data/coco_detr.py`` does."""
    resize = v2.RandomShortestSize(SHORT_EDGES, max_size=1333)
    crop = [v2.RandomShortestSize([400, 500, 600]), v2.RandomCrop((384, 600), pad_if_needed=True)]
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomChoice([resize, v2.Compose([*crop, resize])]),
            v2.SanitizeBoundingBoxes(),
        ]
    )


class TorchvisionDataset(Dataset):
    """Images as tensors and their boxes, augmented."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.augmentation = torchvision_augmentation()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        record = self.records[index]
        image = tv_tensors.Image(torchvision.io.decode_image(record["file_name"], "RGB"))
        boxes = torch.tensor([a["bbox"] for a in record["annotations"]]).view(-1, 4)
        size = image.shape[-2:]
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYWH", canvas_size=size),
            "labels": torch.tensor([a["category_id"] for a in record["annotations"]]).long(),
        }
        return self.augmentation(image, target)


def our_loader(node: Any, workers: int) -> Iterator[Any]:
    """Batches of the training loader of a config."""
    node = node.copy()
    node.num_workers = workers
    return iter(TrainStream(node, seed=0).loader())


def their_loader(records: list[Record], batch: int, workers: int) -> Iterator[Any]:
    """Batches of torch's own loader."""
    dataset = TorchvisionDataset(records)
    endless = RandomSampler(dataset, replacement=True, num_samples=10**6)
    return iter(DataLoader(dataset, batch, sampler=endless, num_workers=workers, collate_fn=list))


def seeded(work: Callable[[int], Any], count: int) -> None:
    """The first images of the data set, the same draws in each run."""
    np.random.seed(0)
    torch.manual_seed(0)
    for index in range(count):
        work(index)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare mappers in one process, and loaders with workers."""
    device, clock = prepare(args)
    scenes = make_digit_scenes(folder / "scenes", args.images, 1, args.size, progress=False)
    node = get_config("common/data/custom.py").dataloader.train
    node.total_batch_size = args.batch
    node.dataset.update(json_file=str(scenes / "train.json"), image_root=str(scenes / "train"))
    records = coco_dataset(**{key: node.dataset[key] for key in ("json_file", "image_root")})
    mapper, theirs = instantiate(node.mapper), TorchvisionDataset(records)
    ways: dict[str, dict[str, Work]] = {
        "one process": {
            "detrex mapper": partial(seeded, lambda i: mapper(records[i]), args.images),
            "torchvision v2": partial(seeded, theirs.__getitem__, args.images),
        }
    }
    batches = max(args.images // args.batch, 1)
    for workers in args.workers:
        loaders = {
            "detrex loader": our_loader(node, workers),
            "torchvision v2 in torch's loader": their_loader(records, args.batch, workers),
        }
        ways[f"loader with {workers} workers"] = {
            name: partial(lambda loader: list(itertools.islice(loader, batches)), loader)
            for name, loader in loaders.items()
        }
    results = {}
    for name, works in ways.items():
        if args.only in name:
            print(f"{name}, {args.images} images")
            images = {"images": float(batches * args.batch if "loader" in name else args.images)}
            results[name] = compare(next(iter(works)), works, args.repeats, device, clock, images)
    return results


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=24, help="in each run")
    parser.add_argument("--size", type=int, default=640, help="longer side of the image files")
    parser.add_argument("--batch", type=int, default=4, help="of the loader")
    parser.add_argument("--workers", type=int, nargs="*", default=[2], help="of the loader")
    args = parser.parse_args()
    if args.cpu_time and args.workers:
        parser.error("--cpu-time doesn't see what workers take; add --workers without a number.")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(args, Path(folder))
    write(args, results)


if __name__ == "__main__":
    main()
