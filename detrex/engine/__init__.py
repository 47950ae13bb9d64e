"""Training and evaluation from a LazyConfig."""

from detrex.engine.cli import argument_parser, main
from detrex.engine.ema import EmaHook, ModelEma
from detrex.engine.errors import SetupError
from detrex.engine.evaluation import Evaluation, do_test
from detrex.engine.hooks import StopOnSignal, TrainingStopped
from detrex.engine.loaders import TrainStream
from detrex.engine.predict import Predictor, find_pictures, load_predictor, predict_files
from detrex.engine.train import TrainingRun, do_train, evaluate_only, run
from detrex.engine.trainer import Trainer, amp_dtype

__all__ = [
    "EmaHook",
    "Evaluation",
    "ModelEma",
    "Predictor",
    "SetupError",
    "StopOnSignal",
    "TrainStream",
    "Trainer",
    "TrainingRun",
    "TrainingStopped",
    "amp_dtype",
    "argument_parser",
    "do_test",
    "do_train",
    "evaluate_only",
    "find_pictures",
    "load_predictor",
    "main",
    "predict_files",
    "run",
]
