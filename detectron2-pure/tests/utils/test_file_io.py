import urllib.error

import pytest
from detectron2.utils import file_io
from detectron2.utils.file_io import PathHandler, PathManager


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_local_paths(tmp_path):
    path = str(tmp_path / "x.txt")
    with PathManager.open(path, "w") as f:
        f.write("hello")
    assert PathManager.get_local_path(path) == path


def test_detectron2_name_uses_the_cached_file(cache):
    file = cache / "detectron2" / "ImageNetPretrained" / "R.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    name = "detectron2://ImageNetPretrained/R.pkl"
    assert PathManager.get_local_path(name) == str(file)
    with PathManager.open(name, "rb") as f:
        assert f.read() == b"weights"


def test_offline_error_says_what_where_and_what_to_do(cache, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("iopath.common.download.request.urlretrieve", no_network)
    with pytest.raises(FileNotFoundError) as e:
        PathManager.get_local_path("detectron2://a/b.pkl")
    message = str(e.value)
    assert "https://dl.fbaipublicfiles.com/detectron2/a/b.pkl" in message
    assert "no route" in message
    assert str(cache / "detectron2" / "a" / "b.pkl") in message
    assert isinstance(e.value.__cause__, urllib.error.URLError)
    assert not (cache / "detectron2" / "a" / "b.pkl").exists()


def test_detectron2_files_are_read_only():
    with pytest.raises(OSError, match="can only be read"):
        PathManager.open("detectron2://a/b.pkl", "w")


def test_users_register_handlers(tmp_path):
    class Handler(PathHandler):
        def _get_supported_prefixes(self):
            return ["mine://"]

        def _get_local_path(self, path, force=False, **kwargs):
            return str(tmp_path / path[len("mine://") :])

    manager = type(file_io.PathManager)()
    manager.register_handler(Handler())
    assert manager.get_local_path("mine://x") == str(tmp_path / "x")
