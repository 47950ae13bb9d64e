"""The scripts as they are called: from a checkout, by path, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def call(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    roots = [str(CHECKOUT), str(Path(detectron2.__file__).resolve().parents[1])]
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "tools" / script), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
    )


def test_help_shows_the_options_and_examples(tmp_path):
    result = call("train_net.py", "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for part in ("--config-file", "--resume", "--eval-only", "--num-gpus", "train.max_iter=1000"):
        assert part in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: no config: say which one with --config-file"),
        (["--config-file", "no.py"], "error: config file 'no.py' does not exist"),
    ],
)
def test_a_missing_config_is_one_sentence_without_a_traceback(tmp_path, arguments, message):
    result = call("train_net.py", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
