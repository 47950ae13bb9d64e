"""The script as it is called: from a checkout, by path, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest

from tools import train_net

CHECKOUT = Path(__file__).resolve().parents[2]


def test_help_shows_the_options_and_examples(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--help"])
    with pytest.raises(SystemExit) as end:
        train_net.main()
    assert end.value.code == 0
    text = capsys.readouterr().out
    for part in ("--config-file", "--resume", "--eval-only", "--num-gpus", "train.max_iter=1000"):
        assert part in text


def test_without_a_config_it_asks_for_one(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_net.py"])
    with pytest.raises(SystemExit, match="error: no config: say which one with --config-file"):
        train_net.main()


def test_a_missing_config_is_one_sentence_without_a_traceback(tmp_path):
    roots = [str(CHECKOUT), str(Path(detectron2.__file__).resolve().parents[1])]
    result = subprocess.run(
        [sys.executable, str(CHECKOUT / "tools" / "train_net.py"), "--config-file", "no.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
    )
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if "Warning" not in line]
    assert len(errors) == 1
    assert errors[0].startswith("error: config file 'no.py' does not exist")
    assert list(tmp_path.iterdir()) == []
