#!/usr/bin/env python3
"""What a trained model finds in pictures, a video or a webcam.

    python demo/demo.py --config-file config.py --input a.jpg b.jpg --output found/ \
        --opts train.init_checkpoint=model_final.pth
    python demo/demo.py --config-file config.py --input photos/ --output found/
    python demo/demo.py --config-file config.py --input 'photos/*.jpg' --output found/
    python demo/demo.py --config-file config.py --video-input in.mp4 --output out.mp4
    python demo/demo.py --config-file config.py --webcam

Without train.init_checkpoint the last checkpoint of train.output_dir is taken. A picture that can't
be read is named, and the others are done; the exit code is then 2. No file is overwritten: names
get _2, _3, ... Videos and webcams need OpenCV (pip install opencv-python).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import ColorMode
from PIL import Image, ImageShow
from predictors import VisualizationDemo
from tqdm import tqdm

from detrex.engine.errors import usage_errors
from detrex.engine.predict import find_pictures, load_predictor, predict_files
from detrex.utils.paths import unused_path

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
WINDOW = "detections (Esc ends)"
COCO = "coco_2017_val"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a LazyConfig file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="pictures, folders, or patterns in quotes")
    source.add_argument("--video-input", metavar="FILE", help="a video")
    source.add_argument("--webcam", action="store_true", help="the first webcam")
    parser.add_argument(
        "--output", help="a folder, or a file for one picture or video; default: a window"
    )
    parser.add_argument("--min_size_test", type=int, help="shorter side; default: the config's")
    parser.add_argument("--max_size_test", type=int, help="the longer one at most; likewise")
    parser.add_argument(
        "--img_format", choices=("RGB", "BGR"), help="what the model expects; likewise"
    )
    parser.add_argument(
        "--metadata_dataset",
        help="a registered data set with the names of the classes; default: the names in the "
        f"checkpoint, or else those of {COCO} if there are as many",
    )
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.5, help="the least score that is shown"
    )
    parser.add_argument("--parallel", action="store_true", help="a video on all GPUs")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config; they come last",
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the options before a model is built.

    Raises:
        ValueError: an option is out of range.
    """
    if not 0 <= args.confidence_threshold <= 1:
        raise ValueError(
            f"--confidence-threshold {args.confidence_threshold}: it is between 0 and 1."
        )
    for name in ("min_size_test", "max_size_test"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: it is at least 1.")


def build(args: argparse.Namespace) -> VisualizationDemo:
    """The model of the command line, with the names of its classes."""
    predictor = load_predictor(
        args.config_file, args.opts, args.min_size_test, args.max_size_test, args.img_format
    )
    metadata: str | Metadata = args.metadata_dataset or COCO
    if not args.metadata_dataset and predictor.class_names:
        metadata = Metadata(thing_classes=predictor.class_names)
    elif not args.metadata_dataset and getattr(predictor.model, "num_classes", 80) != 80:
        metadata = Metadata(thing_classes=[])
    # Classes have their colors in pictures; in videos each object keeps one of its own.
    mode = ColorMode.SEGMENTATION if args.input else ColorMode.IMAGE
    return VisualizationDemo(
        predictor, metadata_dataset=metadata, instance_mode=mode, parallel=args.parallel
    )


def targets(pictures: Sequence[Path], output: str) -> Iterator[Path]:
    """Where each picture goes: the named file, or a file of the same name in the named folder.

    Raises:
        ValueError: there are several pictures for one file.
    """
    place = Path(output)
    if place.suffix and not place.is_dir():
        if len(pictures) > 1:
            raise ValueError(
                f"--output {output} is one file for {len(pictures)} pictures; name a folder."
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        return iter([place])
    place.mkdir(parents=True, exist_ok=True)
    return (place / picture.name for picture in pictures)


def run_on_pictures(demo: VisualizationDemo, args: argparse.Namespace, pictures: list[Path]) -> int:
    """Draw on each picture; returns how many could not be read or written."""
    with usage_errors():
        places = targets(pictures, args.output) if args.output else iter(pictures)
    failed = 0
    progress = tqdm(predict_files(demo.predictor.predictor, pictures), total=len(pictures))
    for seen, place in zip(progress, places, strict=True):
        problem = seen.error
        if seen.image is not None and seen.instances is not None:
            image = seen.image[:, :, ::-1]
            drawn = demo.draw(image, seen.instances, args.confidence_threshold).get_image()
            problem = write(drawn, place) if args.output else show(drawn)
        if problem:
            failed += 1
            tqdm.write(f"error: {problem}", file=sys.stderr)
    if args.output:
        print(f"{len(pictures) - failed} of {len(pictures)} pictures are in {args.output}")
    return failed


def write(image: np.ndarray, path: Path) -> str:
    """Write a picture beside what is there already; returns why it could not, or nothing."""
    try:
        Image.fromarray(image).save(unused_path(path))
    except (OSError, ValueError) as e:
        return f"{path} cannot be written: {e}"
    return ""


def show(image: np.ndarray) -> str:
    """Open a window with a picture; returns why it could not, or nothing."""
    return "" if ImageShow.show(Image.fromarray(image)) else "no program shows pictures: --output."


def open_cv() -> Any:
    """OpenCV, which only videos need.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import cv2
    except ImportError as e:
        raise ImportError("videos and webcams need OpenCV: pip install opencv-python.") from e
    return cv2


@contextmanager
def opened(cv2: Any, source: str | int) -> Iterator[Any]:
    """A video or a webcam.

    Raises:
        OSError: it cannot be opened.
    """
    if isinstance(source, str) and not Path(source).is_file():
        raise FileNotFoundError(f"video {source} does not exist.")
    video = cv2.VideoCapture(source)
    try:
        if not video.isOpened():
            what = "there is no webcam" if isinstance(source, int) else f"{source} is no video"
            raise OSError(f"{what} that OpenCV can read.")
        yield video
    finally:
        video.release()


class Window:
    """Shows frames until Esc is pressed."""

    def __init__(self, cv2: Any) -> None:
        self.cv2 = cv2

    def write(self, frame: np.ndarray) -> bool:
        """Show a frame; returns whether to go on."""
        try:
            self.cv2.imshow(WINDOW, frame)
            return self.cv2.waitKey(1) != 27
        except self.cv2.error as e:  # opencv-python-headless, or no display
            raise OSError("OpenCV opens no window here: write a file with --output.") from e

    def close(self) -> None:
        with suppress(self.cv2.error):  # there is none
            self.cv2.destroyAllWindows()


class File:
    """Writes frames to a video file, which is made when the first one says how large they are.

    Raises:
        OSError: OpenCV cannot write such a file.
    """

    def __init__(self, cv2: Any, path: Path, frames_per_second: float) -> None:
        self.cv2, self.path, self.rate = cv2, path, frames_per_second or 30.0
        self.writer: Any = None

    def write(self, frame: np.ndarray) -> bool:
        """Append a frame; returns whether to go on."""
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = self.cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
            size = frame.shape[1], frame.shape[0]
            self.writer = self.cv2.VideoWriter(str(self.path), codec, self.rate, size)
            if not self.writer.isOpened():
                raise OSError(f"OpenCV cannot write {self.path}; try another ending, such as .avi.")
        self.writer.write(np.ascontiguousarray(frame))
        return True

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()


def video_path(output: str, source: str | int) -> Path:
    """Where the video goes.

    Raises:
        ValueError: it is a kind of file that is no video.
    """
    path = Path(output)
    if path.is_dir() or not path.suffix:
        path /= "webcam.mp4" if isinstance(source, int) else Path(source).name
    if path.suffix.lower() not in CODECS:
        raise ValueError(f"--output {path}: a video ends with {', '.join(CODECS)}.")
    return unused_path(path)


def run_on_video(demo: VisualizationDemo, args: argparse.Namespace) -> None:
    """Draw on each frame of a video or a webcam."""
    cv2 = open_cv()
    source = 0 if args.webcam else args.video_input
    with opened(cv2, source) as video:
        rate, total = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        path = video_path(args.output, source) if args.output else None
        count = 0
        with closing(File(cv2, path, rate) if path else Window(cv2)) as sink:
            frames = demo.run_on_video(video, args.confidence_threshold)
            for frame in tqdm(frames, total=total if total > 0 else None):
                count += 1
                if not sink.write(frame):
                    break
        if not count:
            raise OSError(f"{source} has no frames.")
        if path:
            print(f"{count} frames are in {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    args = parser().parse_args(arguments)
    with usage_errors():
        check(args)
        pictures = find_pictures(args.input) if args.input else []
        if not pictures:
            open_cv()
        demo = build(args)
    if not pictures:
        with usage_errors():
            run_on_video(demo, args)
    elif run_on_pictures(demo, args, pictures):
        raise SystemExit(2)


if __name__ == "__main__":
    main()
