import logging
import os
import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import PathManager as PathManagerBase
from torch import nn


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.stem = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, 4)
        self.register_buffer("pixel_mean", torch.zeros(3))


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_save_and_resume(tmp_path):
    model, optimizer = Detector(), torch.optim.SGD(Detector().parameters(), lr=0.125)
    checkpointer = DetectionCheckpointer(model, str(tmp_path / "new"), optimizer=optimizer)
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000009", iteration=9)
    assert sorted(os.listdir(tmp_path / "new")) == ["last_checkpoint", "model_0000009.pth"]

    other, other_optimizer = Detector(), torch.optim.SGD(Detector().parameters(), lr=1.0)
    resumed = DetectionCheckpointer(other, str(tmp_path / "new"), optimizer=other_optimizer)
    assert resumed.resume_or_load("", resume=True)["iteration"] == 9
    assert same(other, model)
    assert other_optimizer.param_groups[0]["lr"] == 0.125


def test_without_resume_only_the_model_is_loaded(tmp_path):
    optimizer = torch.optim.SGD(Detector().parameters(), lr=0.125)
    model = Detector()
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("start", iteration=9)
    other, other_optimizer = Detector(), torch.optim.SGD(Detector().parameters(), lr=1.0)
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    checkpointer.resume_or_load(str(tmp_path / "start.pth"), resume=False)
    assert same(other, model)
    assert other_optimizer.param_groups[0]["lr"] == 1.0


def test_empty_path_loads_nothing(tmp_path):
    assert DetectionCheckpointer(Detector(), str(tmp_path)).resume_or_load("", resume=True) == {}
    assert DetectionCheckpointer(Detector()).load("") == {}


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model = Detector()
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model_best")
    before = (tmp_path / "model_best.pth").read_bytes()

    def full_disk(data, f):
        f.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save("model_best")
    assert (tmp_path / "model_best.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_best.pth"]


def test_only_the_chosen_process_writes(tmp_path):
    DetectionCheckpointer(Detector(), str(tmp_path), save_to_disk=False).save("m")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="folder"):
        DetectionCheckpointer(Detector(), str(tmp_path)).save("a/b")


def test_one_failed_load_does_not_spoil_the_next(tmp_path):
    model = Detector()
    torch.save(model.state_dict(), tmp_path / "good.pth")
    (tmp_path / "bad.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:500])
    checkpointer = DetectionCheckpointer(Detector(), str(tmp_path))
    bad = str(tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth \(500 bytes\) cannot be read"):
        checkpointer.load(bad + "?matching_heuristics=True")
    with pytest.raises(FileNotFoundError, match=r"none\.pth not found"):
        checkpointer.load(str(tmp_path / "none.pth"))
    checkpointer.load(str(tmp_path / "good.pth"))
    assert same(checkpointer.model, model)
    torch.save({"bias": torch.zeros(4)}, tmp_path / "suffix.pth")
    with pytest.raises(ValueError, match="None of the checkpoint's 1 tensors"):
        checkpointer.load(str(tmp_path / "suffix.pth"))


def test_missing_last_checkpoint_file_is_explained(tmp_path):
    checkpointer = DetectionCheckpointer(Detector(), str(tmp_path))
    checkpointer.save("model_0000001")
    checkpointer.tag_last_checkpoint("model_0000002.pth")
    message = r"model_0000002\.pth not found\. .* has model_0000001\.pth; the file last_checkpoint"
    with pytest.raises(FileNotFoundError, match=message):
        checkpointer.resume_or_load("", resume=True)


def test_wrapped_model_and_prefixed_file(tmp_path):
    model = Detector()
    prefixed = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save(prefixed, tmp_path / "w.pth")
    wrapped = nn.DataParallel(Detector())
    DetectionCheckpointer(wrapped, str(tmp_path)).load(str(tmp_path / "w.pth"))
    assert same(wrapped.module, model)


def test_backbone_pickle_is_matched_by_suffix(tmp_path):
    model = Detector()
    weight = np.random.randn(2, 3, 1, 1).astype(np.float32)
    data = {"stem.weight": weight, "stem.fc.weight": np.zeros(3, dtype=np.float32)}
    data = {"model": data, "__author__": "torchvision", "matching_heuristics": True}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(data))
    DetectionCheckpointer(model).load(str(path))
    assert torch.equal(model.backbone.stem.weight, torch.from_numpy(weight))


def test_caffe2_pickle_is_renamed(tmp_path):
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.stem = nn.Module()
    model.backbone.stem.conv1 = nn.Conv2d(3, 2, 1, bias=False)
    weight = np.random.randn(2, 3, 1, 1).astype(np.float32)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"conv1_w": weight, "fc1000_b": weight[0, 0]}))
    DetectionCheckpointer(model).load(str(path))
    assert torch.equal(model.backbone.stem.conv1.weight, torch.from_numpy(weight))


def test_query_asks_for_matching(tmp_path):
    model = Detector()
    torch.save({"stem.weight": torch.ones(2, 3, 1, 1)}, tmp_path / "w.pth")
    path = str(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"None of the checkpoint's 1 tensors .*matching_heur"):
        DetectionCheckpointer(model).load(path)
    DetectionCheckpointer(model).load(path + "?matching_heuristics=True")
    assert torch.equal(model.backbone.stem.weight, torch.ones(2, 3, 1, 1))
    with pytest.raises(ValueError, match=r"Unsupported query 'match=True'"):
        DetectionCheckpointer(model).load(path + "?match=True")


def test_report_of_what_did_not_fit(tmp_path, caplog):
    model = Detector()
    state = dict(model.state_dict())
    state["head.weight"] = torch.zeros(91, 2)
    del state["head.bias"], state["pixel_mean"]
    state["extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(str(tmp_path / "w.pth"))
    assert "'head.weight'" in caplog.text and "(91, 2)" in caplog.text and "(4, 2)" in caplog.text
    assert "head.{bias, weight}" in caplog.text or "head.bias" in caplog.text
    assert "extra" in caplog.text
    assert "pixel_mean" not in caplog.text


def test_nothing_of_the_right_shape_is_an_error(tmp_path):
    torch.save({"head.weight": torch.zeros(91, 2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"head\.weight, .*\(91, 2\) in the file and \(4, 2\)"):
        DetectionCheckpointer(Detector()).load(str(tmp_path / "w.pth"))


def test_periodic_checkpointer_keeps_the_last_ones(tmp_path):
    checkpointer = DetectionCheckpointer(Detector(), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, period=2, max_iter=7, max_to_keep=2)
    for iteration in range(7):
        periodic.step(iteration)
    files = ["last_checkpoint", "model_0000003.pth", "model_0000005.pth", "model_final.pth"]
    assert sorted(os.listdir(tmp_path)) == files
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_subclass_may_read_its_own_format(tmp_path):
    class Mine(DetectionCheckpointer):
        def _load_file(self, filename):
            assert filename == str(tmp_path / "w.txt")
            return {"model": {"head.bias": np.arange(4.0, dtype=np.float32)}, "note": "mine"}

    (tmp_path / "w.txt").touch()
    model = Detector()
    assert Mine(model).load(str(tmp_path / "w.txt"))["note"] == "mine"
    assert model.head.bias.tolist() == [0, 1, 2, 3]


def test_processes_that_see_different_folders_do_not_resume(tmp_path, monkeypatch):
    checkpointer = DetectionCheckpointer(Detector(), str(tmp_path))
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", lambda data: [True, data])
    with pytest.raises(FileNotFoundError, match=r"processes \[1\] do not see .*last_checkpoint"):
        checkpointer.resume_or_load("", resume=True)
    assert checkpointer.resume_or_load("", resume=False) == {}
    checkpointer.save("m")
    checkpointer.resume_or_load("", resume=True)


def test_path_manager_can_be_replaced(tmp_path):
    class Handler(PathHandler):
        def _get_supported_prefixes(self):
            return ["weights://"]

        def _get_local_path(self, path, **kwargs):
            return str(tmp_path / path.removeprefix("weights://"))

    manager = PathManagerBase()
    manager.register_handler(Handler())
    model = Detector()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    checkpointer = DetectionCheckpointer(Detector())
    checkpointer.path_manager = manager
    checkpointer.load("weights://w.pth?matching_heuristics=True")
    assert same(checkpointer.model, model)


def test_catalog_paths(tmp_path, monkeypatch):
    torch.save({"head.bias": torch.ones(4)}, tmp_path / "R-50.pkl")
    monkeypatch.setattr(ModelCatalog, "S3_C2_DETECTRON_PREFIX", str(tmp_path))
    monkeypatch.setitem(ModelCatalog.C2_IMAGENET_MODELS, "MSRA/R-50", "R-50.pkl")
    path = "catalog://ImageNetPretrained/MSRA/R-50"
    assert PathManager.get_local_path(path) == str(tmp_path / "R-50.pkl")
    model = Detector()
    DetectionCheckpointer(model).load(path)
    assert torch.equal(model.head.bias, torch.ones(4))
    with pytest.raises(RuntimeError, match="not present in the catalog: Nope"):
        ModelCatalog.get("Nope")
