"""Log set-up, rate-limited logging, and small tables."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import FrameType
from typing import IO, Any

import torch
from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from termcolor import colored

__all__ = [
    "create_small_table",
    "log_every_n",
    "log_every_n_seconds",
    "log_first_n",
    "setup_logger",
]

_DATE_FORMAT = "%m/%d %H:%M:%S"
_PLAIN_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"


class _NameShortener(logging.Formatter):
    """Writes ``d2.engine.hooks`` for ``detectron2.engine.hooks``."""

    def __init__(self, *args: Any, root_name: str, abbrev_name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._root_name = root_name
        self._abbrev_name = abbrev_name

    def _short_name(self, name: str) -> str:
        if name == self._root_name or name.startswith(self._root_name + "."):
            return (self._abbrev_name + name[len(self._root_name) :]).lstrip(".")
        return name

    def formatMessage(self, record: logging.LogRecord) -> str:
        full_name = record.name
        record.name = self._short_name(full_name)
        try:
            return super().formatMessage(record)
        finally:
            record.name = full_name  # other handlers get the same record


class _ColorfulFormatter(_NameShortener):
    """Adds a colored prefix to warnings and errors."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        if record.levelno >= logging.ERROR:
            return colored("ERROR", "red", attrs=["blink", "underline"]) + " " + text
        if record.levelno >= logging.WARNING:
            return colored("WARNING", "red", attrs=["blink"]) + " " + text
        return text


class _StdoutHandler(logging.StreamHandler):
    """Writes to what ``sys.stdout`` is now: notebooks and test runners replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:
        return sys.stdout


class _LogFileHandler(logging.StreamHandler):
    """Appends to a file that may be local or behind the path manager."""

    def __init__(self, path: str) -> None:
        folder = os.path.dirname(path)
        if folder:
            PathManager.mkdirs(folder)
        # StreamHandler flushes each record: what was logged before a crash is in the file.
        super().__init__(PathManager.open(path, "a"))
        self.path = path

    def close(self) -> None:
        self.stream.close()
        super().close()


def setup_logger(
    output: str | os.PathLike[str] | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Send a logger and its children to the console and to a file.

    Calling it again for the same name is safe: there is one console handler, and a new
    ``output`` takes the place of the old one.

    Args:
        output: a folder (gets ``log.txt``), or a file name that ends with .txt or .log, or
            None for no file. Ranks other than 0 write to ``<file>.rank<N>``.
        distributed_rank: rank of this process; only rank 0 writes to the console.
        color: colored console lines.
        name: the root of the loggers to set up.
        abbrev_name: what to print for ``name``; "d2" for detectron2, "" to drop it.
        enable_propagation: also pass records to the handlers of parent loggers.
        configure_stdout: write to the console at all.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name
    names = {"datefmt": _DATE_FORMAT, "root_name": name, "abbrev_name": abbrev_name}
    if configure_stdout and distributed_rank == 0:
        _set_console(logger, color, names)
    if output is not None:
        _set_log_file(logger, _log_file_name(os.fspath(output), distributed_rank), names)
    return logger


def _set_console(logger: logging.Logger, color: bool, names: dict[str, str]) -> None:
    handler = next((h for h in logger.handlers if isinstance(h, _StdoutHandler)), None)
    if handler is None:
        handler = _StdoutHandler()
        handler.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    if color:
        prefix = colored("[%(asctime)s %(name)s]: ", "green")
        handler.setFormatter(_ColorfulFormatter(prefix + "%(message)s", **names))
    else:
        handler.setFormatter(_NameShortener(_PLAIN_FORMAT, **names))


def _log_file_name(output: str, distributed_rank: int) -> str:
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    return f"{path}.rank{distributed_rank}" if distributed_rank > 0 else path


def _set_log_file(logger: logging.Logger, path: str, names: dict[str, str]) -> None:
    for old in [h for h in logger.handlers if isinstance(h, _LogFileHandler)]:
        if old.path == path and os.path.exists(path):
            return
        logger.removeHandler(old)
        old.close()
    handler = _LogFileHandler(path)
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(_NameShortener(_PLAIN_FORMAT, **names))
    logger.addHandler(handler)


_CallSite = tuple[str, int, str]


def _find_caller() -> tuple[str, _CallSite]:
    """Module name, and (file, line, function) of the first caller outside this file."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    if frame is None:
        return "detectron2", ("", 0, "")
    module = frame.f_globals.get("__name__", "__main__")
    if module == "__main__":
        module = "detectron2"  # a script has no logger name of its own
    code = frame.f_code
    return module, (code.co_filename, frame.f_lineno, code.co_name)


_counter: Counter[tuple[Any, ...]] = Counter()
_last_logged: dict[tuple[Any, ...], float] = {}


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log only the first n times.

    Args:
        lvl: logging level.
        msg: the message.
        n: how many times.
        name: logger name; the caller's module by default.
        key: what counts as the same: "caller" (this line of code), "message" (this text), or
            both as a tuple.
    """
    module, site = _find_caller()
    kinds = (key,) if isinstance(key, str) else key
    if not kinds or not set(kinds) <= {"caller", "message"}:
        raise ValueError(f'key is "caller", "message" or a tuple of them, not {key!r}.')
    counted: tuple[Any, ...] = ("first",)
    counted += site if "caller" in kinds else ()
    counted += (msg,) if "message" in kinds else ()
    _counter[counted] += 1
    if _counter[counted] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log at the 1st, (n+1)th, (2n+1)th ... time that this line of code is reached.

    Args:
        lvl: logging level.
        msg: the message.
        n: the period.
        name: logger name; the caller's module by default.
    """
    module, site = _find_caller()
    key = ("every", *site)
    _counter[key] += 1
    if n == 1 or _counter[key] % n == 1:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log at most once in n seconds from this line of code.

    Args:
        lvl: logging level.
        msg: the message.
        n: seconds.
        name: logger name; the caller's module by default.
    """
    module, key = _find_caller()
    now = time.monotonic()
    last = _last_logged.get(key)
    if last is None or now - last >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_logged[key] = now


def create_small_table(small_dict: Mapping[str, Any]) -> str:
    """A table of one row, for a few items only.

    Args:
        small_dict: column name to value; numbers are printed with three decimals.
    """
    return tabulate(
        [list(small_dict.values())],
        headers=list(small_dict.keys()),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )


def _log_api_usage(identifier: str) -> None:
    """Tell torch's usage hook (silent unless someone installed one) that a part is in use."""
    torch._C._log_api_usage_once("detectron2." + identifier)
