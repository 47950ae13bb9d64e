"""Make the digit scenes of the quickstart.

python tools/make_digit_scenes.py --output datasets/digit_scenes --train 2000 --val 200
"""

from __future__ import annotations

import argparse

from detrex.quickstart import DigitScenes, make_digit_scenes


def main() -> None:
    default = DigitScenes()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, help="directory to create")
    parser.add_argument("--train", type=int, default=default.num_train, help="training scenes")
    parser.add_argument("--val", type=int, default=default.num_val, help="validation scenes")
    parser.add_argument("--size", type=int, default=default.size, help="longer side in pixels")
    parser.add_argument("--seed", type=int, default=default.seed)
    args = parser.parse_args()
    try:
        output = make_digit_scenes(args.output, args.train, args.val, args.size, args.seed)
    except (FileExistsError, ImportError, ValueError) as e:
        parser.error(str(e))
    print(f"{args.train} training and {args.val} validation scenes are in {output}")


if __name__ == "__main__":
    main()
