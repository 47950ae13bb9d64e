"""What detrex reads of weight files; see also ``tests/checkpoint``."""

from __future__ import annotations

import pytest
import torch
from weight_file_cases import CASES, LOADED, REFUSED, WEIGHTS, RunsCode, save

from detrex.utils.weight_files import CheckpointError, read_state_dict


@pytest.mark.parametrize(("name", "how"), CASES)
def test_weights_are_found(name, how, tmp_path):
    weights = read_state_dict(save(tmp_path / "file", LOADED[name], how))
    assert weights.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        assert torch.equal(weights[key], value)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_other_types_are_refused(name, how, tmp_path):
    path = save(tmp_path / "file", {"model": WEIGHTS, "extra": REFUSED[name]}, how)
    with pytest.raises(CheckpointError, match=r"file\.pth"):
        read_state_dict(path)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_is_never_run(how, tmp_path):
    trace = tmp_path / "trace"
    path = save(tmp_path / "file", {"model": WEIGHTS, "args": RunsCode(trace)}, how)
    with pytest.raises(CheckpointError, match=r"file\.(pth|pkl).*mkdir"):
        read_state_dict(path)
    assert not trace.exists()
