"""Command lines that train `tiny_detector.TinyDetector`, for tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from detrex.engine import main

CONFIG = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from detrex.config import get_config
from fvcore.common.param_scheduler import LinearParamScheduler
from tiny_detector import TinyDetector

dataloader = get_config("common/data/custom.py").dataloader
dataloader.train.total_batch_size = 3
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
for mapper in (dataloader.train.mapper, dataloader.test.mapper):
    mapper.augmentation = []
dataloader.train.mapper.augmentation = [L(T.RandomFlip)()]
dataloader.train.mapper.augmentation_with_crop = None

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(LinearParamScheduler)(start_value=1.0, end_value=0.1),
    warmup_length=0.2, warmup_method="linear", warmup_factor=0.1,
)
model = L(TinyDetector)(num_classes=2)
optimizer = get_config("common/optim.py").AdamW
optimizer.lr = 1e-2

train = get_config("common/train.py").train
train.max_iter = 6
train.seed = 1
train.log_period = 1
train.eval_period = 3
train.checkpointer.period = 2
train.model_ema.enabled = True
train.model_ema.decay = 0.5
"""


class Run:
    """A config file, and command lines that use it."""

    def __init__(self, folder: Path, scenes: Path) -> None:
        self.folder = folder
        self.config = folder / "tiny.py"
        self.config.write_text(CONFIG)
        self.data = [
            f"dataloader.{split}.dataset.{key}={value}"
            for split in ("train", "test")
            for key, value in (("json_file", scenes / "scenes.json"), ("image_root", scenes))
        ]

    def __call__(self, name: str, *arguments: str) -> Path:
        output = self.folder / name
        options = ["--config-file", str(self.config), *(a for a in arguments if "=" not in a)]
        overrides = [*self.data, f"train.output_dir={output}", "train.device=cpu"]
        main([*options, *overrides, *(a for a in arguments if "=" in a)])
        return output

    def error(self, name: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            self(name, *arguments)
        assert isinstance(error.value.code, str)
        assert "\n" not in error.value.code
        return error.value.code
