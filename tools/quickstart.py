#!/usr/bin/env python3
"""From nothing to a trained detector: make a data set, train on it, look at the result.

The data are handwritten digits on photographs, written as ordinary image files and COCO json;
the training is that of ``tools/train_net.py --config-file configs/quickstart/digits.py``.
"""

from __future__ import annotations

import argparse
import os

from detrex.engine import main as train
from detrex.quickstart import DigitScenes, make_digit_scenes

CONFIG = "quickstart/digits.py"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="output/quickstart", help="directory for the results")
    parser.add_argument("--data", default="datasets/digit_scenes", help="directory for the data")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("overrides", nargs="*", help="changes to the config: key=value")
    args = parser.parse_args()
    scenes = DigitScenes()
    try:
        make_digit_scenes(args.data, scenes.num_train, scenes.num_val, scenes.size, scenes.seed)
    except (FileExistsError, ImportError) as e:
        parser.error(str(e))
    overrides = [f"train.output_dir={args.output}"]
    for split, files in (("train", "train"), ("test", "val")):
        dataset = f"dataloader.{split}.dataset"
        overrides.append(f"{dataset}.json_file={os.path.join(args.data, files + '.json')}")
        overrides.append(f"{dataset}.image_root={os.path.join(args.data, files)}")
    resume = ["--resume"] if args.resume else []
    train(["--config-file", CONFIG, *resume, *overrides, *args.overrides])


if __name__ == "__main__":
    main()
