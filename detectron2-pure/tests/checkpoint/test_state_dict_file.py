import argparse
import os
import pathlib
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from detectron2.checkpoint.state_dict_file import (
    UnsafeCheckpointError,
    load_checkpoint_file,
    load_state_dict_file,
)

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([0.5, -1.0])}


class RunsCode:
    """Leaves a file behind if anyone unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def assert_same_weights(found, expected=WEIGHTS):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert isinstance(found[name], torch.Tensor)
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "model_state", None])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zip_format", [True, False])
def test_torch_files(tmp_path, key, prefix, zip_format):
    weights = OrderedDict((prefix + name, value) for name, value in WEIGHTS.items())
    data = {key: weights, "epoch": 3} if key else weights
    path = tmp_path / "w.pth"
    torch.save(data, path, _use_new_zipfile_serialization=zip_format)
    assert_same_weights(load_state_dict_file(path))
    checkpoint = load_checkpoint_file(path)
    assert checkpoint.get("epoch") == (3 if key else None)
    assert set(checkpoint["model"]) == set(weights)


def test_a_module_that_is_called_module_keeps_its_name(tmp_path):
    weights = {"module.w": torch.ones(1), "head.w": torch.ones(1)}
    torch.save(weights, tmp_path / "w.pth")
    assert_same_weights(load_state_dict_file(tmp_path / "w.pth"), weights)


def test_training_leftovers_of_original_scripts(tmp_path):
    args = argparse.Namespace(lr=1e-4, lr_drop=[40], output_dir=pathlib.Path("exps/detr"))
    data = {
        "model": WEIGHTS,
        "args": args,
        "best": np.float64(0.42),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "curve": np.linspace(0, 1, 5, dtype=np.float32),
        "big_endian": np.arange(3, dtype=">i4"),
    }
    path = tmp_path / "w.pth"
    torch.save(data, path)
    found = load_checkpoint_file(path)
    assert_same_weights(found["model"])
    assert found["args"].lr == 1e-4 and str(found["args"].output_dir) == "exps/detr"
    assert (found["best"], found["count"], found["flag"]) == (0.42, 3, True)
    np.testing.assert_array_equal(found["curve"], data["curve"])
    np.testing.assert_array_equal(found["big_endian"], [0, 1, 2])


def test_reading_leaves_torch_settings_alone(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save(WEIGHTS, tmp_path / "w.pth")
    load_checkpoint_file(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("zip_format", [True, False])
def test_torch_file_with_code_is_refused(tmp_path, zip_format):
    path = tmp_path / "evil.pth"
    data = {"model": WEIGHTS, "extra": RunsCode(tmp_path / "made")}
    torch.save(data, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(UnsafeCheckpointError, match=r"evil\.pth refers to posix\.mkdir"):
        load_checkpoint_file(path)
    assert not (tmp_path / "made").exists()


def test_pickle_with_code_is_refused(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {}, "extra": RunsCode(tmp_path / "made")}))
    with pytest.raises(UnsafeCheckpointError, match=r"evil\.pkl refers to posix\.mkdir"):
        load_checkpoint_file(path)
    assert not (tmp_path / "made").exists()


def test_code_inside_a_pickled_storage_is_refused(tmp_path):
    inner = tmp_path / "inner.pth"
    torch.save(RunsCode(tmp_path / "made"), inner, pickle_protocol=2)

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (inner.read_bytes(),)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": Storage()}}))
    with pytest.raises(UnsafeCheckpointError, match=r"evil\.pkl refers to posix\.mkdir"):
        load_checkpoint_file(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_zoo_pickle(tmp_path, protocol):
    arrays = {name: value.numpy() for name, value in WEIGHTS.items()}
    data = {"model": OrderedDict(arrays), "__author__": "torchvision", "matching_heuristics": True}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    found = load_checkpoint_file(path)
    assert found["__author__"] == "torchvision" and found["matching_heuristics"] is True
    assert_same_weights(load_state_dict_file(path))


def test_pickle_names_of_old_and_new_numpy(tmp_path):
    blob = pickle.dumps({"model": {"w": np.arange(3.0)}}, protocol=2)
    for name in (b"numpy.core.", b"numpy._core."):
        path = tmp_path / "w.pkl"
        path.write_bytes(blob.replace(b"numpy._core.", name))
        assert load_state_dict_file(path)["w"].tolist() == [0, 1, 2]


def test_pickle_of_tensors(tmp_path):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"model": WEIGHTS, "__author__": "me"}))
    assert_same_weights(load_state_dict_file(path))
    model = torch.nn.Linear(2, 3)
    for state in (model.state_dict(), dict(model.named_parameters())):
        path.write_bytes(pickle.dumps({"model": state}))
        assert torch.equal(load_state_dict_file(path)["weight"], model.weight)


def test_torch_file_named_pkl(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "w.pkl")
    assert_same_weights(load_state_dict_file(tmp_path / "w.pkl"))


def test_caffe2_pickle(tmp_path):
    blobs = {"conv1_w": np.zeros((4, 3, 7, 7)), "conv1_w_momentum": np.zeros(1)}
    for data in (blobs, {"blobs": blobs}):
        path = tmp_path / "R-50.pkl"
        path.write_bytes(pickle.dumps(data))
        found = load_checkpoint_file(path)
        assert list(found["model"]) == ["conv1_w"]
        assert found["__author__"] == "Caffe2" and found["matching_heuristics"] is True


def test_pycls_file_asks_for_matching(tmp_path):
    torch.save({"model_state": WEIGHTS}, tmp_path / "w.pyth")
    found = load_checkpoint_file(tmp_path / "w.pyth")
    assert found["matching_heuristics"] is True
    assert_same_weights(found["model"])


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "w.safetensors"
    safetensors.save_file(WEIGHTS, path)
    assert_same_weights(load_state_dict_file(path))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"w\.safetensors \(20 bytes\) cannot be read"):
        load_checkpoint_file(path)


@pytest.mark.parametrize("name", ["w.pth", "w.pkl"])
@pytest.mark.parametrize("keep", [0, 1, 30, 0.5, 0.99])
def test_truncated_files(tmp_path, name, keep):
    path = tmp_path / name
    if name == "w.pth":
        torch.save({"model": WEIGHTS}, path)
    else:
        path.write_bytes(pickle.dumps({"model": {"w": np.zeros(50)}}))
    content = path.read_bytes()
    size = int(len(content) * keep) if isinstance(keep, float) else keep
    path.write_bytes(content[:size])
    with pytest.raises(ValueError, match=rf"{path} \({size} bytes\) cannot be read") as info:
        load_checkpoint_file(path)
    assert "\n" not in str(info.value)


def test_not_a_checkpoint(tmp_path):
    (tmp_path / "page.pth").write_text("<html>404 Not Found</html>")
    with pytest.raises(ValueError, match=r"page\.pth .* cannot be read"):
        load_checkpoint_file(tmp_path / "page.pth")
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "o.pth")
    with pytest.raises(ValueError, match=r"o\.pth has no weights .* it holds epoch, optimizer"):
        load_checkpoint_file(tmp_path / "o.pth")
    torch.save([1, 2], tmp_path / "l.pth")
    with pytest.raises(ValueError, match=r"l\.pth holds a list"):
        load_checkpoint_file(tmp_path / "l.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_checkpoint_file(tmp_path / "none.pth")
