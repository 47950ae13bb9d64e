"""Command line overrides that cannot be misspelled.

LazyConfig's override syntax creates a key that does not exist, so that ``train.max_itre=10`` would
train for the old length without a word. Here such a key is an error, unless it is asked for
(``+key=value``) or is an argument of the callable that the key's parent builds.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

__all__ = ["apply_overrides", "unknown_keys"]


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A copy of ``cfg`` with ``key=value`` overrides applied.

    Args:
        cfg: a loaded LazyConfig.
        overrides: such as ``train.max_iter=100``, ``+train.note=hello`` (a new key),
            ``~train.note`` (removes a key). Values follow Hydra's grammar: ``[1,2]``, ``{a: 1}``,
            ``'quoted text'``.

    Raises:
        KeyError: a key does not exist; the message names the nearest existing ones.
        ValueError: an override is not of the form ``key=value``, or its value cannot be read.
    """
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise ValueError(
                f"The override {override!r} is not of the form key=value, for example "
                "train.max_iter=100; options such as --num-gpus go before the overrides."
            )
    problems = unknown_keys(cfg, overrides)
    if problems:
        raise KeyError(" ".join(problems))
    cfg = copy.deepcopy(cfg)
    for override in overrides:
        if override.startswith("~"):
            _remove(cfg, override[1:])
        else:
            _set(cfg, override)
    return cfg


def _set(cfg: DictConfig, override: str) -> None:
    key, value = override.split("=", 1)
    if "=" in value and value[0] not in "'\"[{":
        # Not every reader of overrides takes a second "=" outside of quotes.
        value = "'" + value.replace("'", "\\'") + "'"
    try:
        LazyConfig.apply_overrides(cfg, [f"{key}={value}"])
    except (KeyError, ValueError):
        raise
    except Exception as e:  # of the parser's own kind
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(
            f"The value of the override {override!r} cannot be read ({reason}); put text with "
            f"special characters in quotes, as in \"{key}='...'\"."
        ) from e


def _remove(cfg: DictConfig, key: str) -> None:
    parent, _, name = key.split("=", 1)[0].rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    with open_dict(node):
        del node[int(name) if isinstance(node, ListConfig) else name]


def unknown_keys(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """What is wrong with each override whose key does not exist in ``cfg``."""
    problems = []
    for override in overrides:
        key = override.split("=", 1)[0].strip()
        removed = key.startswith("~")
        key = key.removeprefix("~")
        if key and key[0] != "+" and not _exists(cfg, key, may_be_argument=not removed):
            problems.append(_explain(cfg, key))
    return problems


def _exists(cfg: Any, key: str, may_be_argument: bool = True) -> bool:
    node = cfg
    parts = key.split(".")
    for i, part in enumerate(parts):
        if isinstance(node, ListConfig):
            if not part.isdigit() or int(part) >= len(node):
                return False
            node = node[int(part)]
        elif isinstance(node, DictConfig):
            # ``part in node`` would deny keys that have no value yet.
            if part not in list(node):
                last = i == len(parts) - 1
                return may_be_argument and last and _is_argument(node.get("_target_"), part)
            node = _child(node, part)
        else:
            # An opaque value (an object, a number): LazyConfig decides.
            return False
    return True


def _child(node: DictConfig, key: str) -> Any:
    """A child without failing on ``???`` or an interpolation that cannot be resolved yet."""
    if OmegaConf.is_missing(node, key):
        return None
    if OmegaConf.is_interpolation(node, key):
        return OmegaConf.select(node, key, throw_on_resolution_failure=False)
    return node[key]


def _is_argument(target: Any, name: str) -> bool:
    """Whether the callable ``target`` (or its dotted name) takes a keyword argument ``name``."""
    if target is None:
        return False
    function: Callable[..., Any] = locate(target) if isinstance(target, str) else target
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(
        p.kind is inspect.Parameter.VAR_KEYWORD
        or (p.name == name and p.kind is not inspect.Parameter.POSITIONAL_ONLY)
        for p in parameters
    )


def _explain(cfg: DictConfig, key: str) -> str:
    known = list(_all_keys(cfg))
    nearest = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    if not nearest:
        # The same last name elsewhere in the tree: a right key with a wrong path.
        last = key.rsplit(".", 1)[-1]
        nearest = [k for k in known if k.rsplit(".", 1)[-1] == last][:3]
    hint = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
    return f"The config has no key {key!r}.{hint} To add it, write +{key}=... with a value."


def _all_keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, ListConfig):
        children: list[tuple[str, Any]] = [(str(i), child) for i, child in enumerate(node)]
    elif isinstance(node, DictConfig):
        children = [(str(k), node._get_node(k)) for k in node if k != "_target_"]
    else:
        return
    for name, child in children:
        yield prefix + name
        if isinstance(child, DictConfig | ListConfig) and not child._is_interpolation():
            yield from _all_keys(child, f"{prefix}{name}.")
