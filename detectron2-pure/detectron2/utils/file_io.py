"""``PathManager``: files by path, by http(s) URL, or by ``detectron2://`` name.

Downloads land in ``$FVCORE_CACHE`` (default ``~/.torch/iopath_cache``) and are kept. Users
register handlers of their own on ``PathManager``.
"""

from __future__ import annotations

import os
from typing import IO, Any
from urllib.parse import urlparse

from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, PathHandler, get_cache_dir
from iopath.common.file_io import PathManager as PathManagerBase

__all__ = ["PathHandler", "PathManager"]

PathManager = PathManagerBase()
"""The path manager of this project; independent of other projects' handlers."""


class _CachedDownloadHandler(HTTPURLHandler):
    """iopath's downloader, with an error that says what to do without a network."""

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        try:
            return super()._get_local_path(path, force=force, cache_dir=cache_dir, **kwargs)
        except OSError as e:  # URLError, HTTPError, timeouts, full disks
            place = os.path.join(get_cache_dir(cache_dir), urlparse(path).path.lstrip("/"))
            raise FileNotFoundError(
                f"Cannot download {path} ({e}). Without a network, get the file elsewhere and put "
                f"it at {place}, or give a local path instead."
            ) from e


class Detectron2Handler(PathHandler):
    """``detectron2://X`` is the file ``X`` of detectron2's public model zoo."""

    PREFIX = "detectron2://"
    URL = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        url = self.URL + path[len(self.PREFIX) :]
        return PathManager.get_local_path(url, force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rb"):
            raise OSError(f"{path} can only be read, but was opened with mode {mode!r}.")
        return open(self._get_local_path(path, **kwargs), mode, buffering=buffering)


PathManager.register_handler(_CachedDownloadHandler())
PathManager.register_handler(OneDrivePathHandler())
PathManager.register_handler(Detectron2Handler())
