"""The table of weight files that detrex's reader has to pass as well."""

import pytest
import torch
from detectron2.checkpoint.state_dict_file import UnsafeCheckpointError, load_state_dict_file
from weight_file_cases import CASES, LOADED, REFUSED, WEIGHTS, RunsCode, save


@pytest.mark.parametrize(("name", "how"), CASES)
def test_weights_are_found(name, how, tmp_path):
    weights = load_state_dict_file(save(tmp_path / "file", LOADED[name], how))
    assert weights.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        assert torch.equal(weights[key], value)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_other_types_are_refused(name, how, tmp_path):
    path = save(tmp_path / "file", {"model": WEIGHTS, "extra": REFUSED[name]}, how)
    with pytest.raises(UnsafeCheckpointError, match=r"file\.pth"):
        load_state_dict_file(path)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_is_never_run(how, tmp_path):
    trace = tmp_path / "trace"
    path = save(tmp_path / "file", {"model": WEIGHTS, "args": RunsCode(trace)}, how)
    with pytest.raises(UnsafeCheckpointError, match=r"file\.(pth|pkl).*mkdir"):
        load_state_dict_file(path)
    assert not trace.exists()
