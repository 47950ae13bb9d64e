"""Command line overrides that cannot be misspelled.

LazyConfig's override syntax creates a key that does not exist, so that ``train.max_itre=10`` would
train for the old length without a word. Here such a key is an error, unless it is asked for
(``+key=value``) or is an argument of the callable that the key's parent builds.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

__all__ = ["apply_overrides", "try_get_key", "unknown_keys"]


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A copy of ``cfg`` with ``key=value`` overrides applied.

    Args:
        cfg: a loaded LazyConfig.
        overrides: such as ``train.max_iter=100``, ``+train.note=hello`` (a new key),
            ``~train.note`` (removes a key), ``augmentation[1].prob=0.2`` (of a list, also
            ``augmentation.1.prob``), ``+tags=[a,b]`` (appends to a list). Values follow Hydra's
            grammar: ``[1,2]``, ``{a: 1}``, ``'quoted text'``.

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
    for override in map(_with_dots, overrides):
        if override.startswith("~"):
            _remove(cfg, override[1:])
        else:
            _set(cfg, override)
    return cfg


def try_get_key(cfg: Any, *keys: str, default: Any = None) -> Any:
    """The value of the first of these dotted keys that the config has; ``default`` if none."""
    absent = object()
    cfg = cfg if OmegaConf.is_config(cfg) else OmegaConf.create(cfg, flags={"allow_objects": True})
    for key in keys:
        value = OmegaConf.select(cfg, key, default=absent)
        if value is not absent:
            return value
    return default


def _with_dots(override: str) -> str:
    """``a[1].b=...``, as omegaconf writes keys, with the index between dots."""
    key, equals, value = override.partition("=")
    return re.sub(r"\[([^\[\]]+)\]", r".\1", key) + equals + value


def _set(cfg: DictConfig, override: str) -> None:
    key, value = override.split("=", 1)
    grown = _list_to_grow(cfg, key)
    if grown is not None:
        read = OmegaConf.create({"value": None}, flags={"allow_objects": True})
        _set(read, f"value={value}")
        grown.extend(read.value if isinstance(read.value, ListConfig) else [read.value])
        return
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


def _list_to_grow(cfg: DictConfig, key: str) -> ListConfig | None:
    """The list that ``+key`` appends to: that of this key, or of ``key.N``, its next place."""
    if not key.startswith("+"):
        return None
    node = OmegaConf.select(cfg, key[1:])
    if isinstance(node, ListConfig):
        return node
    parent, _, last = key[1:].rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else None
    return node if isinstance(node, ListConfig) and last == str(len(node)) else None


def _remove(cfg: DictConfig, key: str) -> None:
    parent, _, name = key.split("=", 1)[0].rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    with open_dict(node):
        del node[int(name) if isinstance(node, ListConfig) else name]


def unknown_keys(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """What is wrong with each override whose key does not exist in ``cfg``."""
    problems = []
    for override in overrides:
        key = _with_dots(override).split("=", 1)[0].strip()
        removed, added = key.startswith("~"), key.startswith("+")
        key = key.lstrip("~+")
        if added:
            known = _exists_but_for_lists(cfg, key)
        else:
            known = _exists(cfg, key, may_be_argument=not removed)
        if key and not known:
            problems.append(_explain(cfg, key))
    return problems


def _exists_but_for_lists(cfg: DictConfig, key: str) -> bool:
    """Whether ``key`` can be added: anywhere but in a list, which grows by its next place only."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent, throw_on_resolution_failure=False) if parent else cfg
    return not isinstance(node, ListConfig) or (last.isdigit() and int(last) <= len(node))


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
    parent, _, last = key.rpartition(".")
    what, new = ("append to the list", parent) if last.isdigit() else ("add it", key)
    return f"The config has no key {key!r}.{hint} To {what}, write +{new}=... with a value."


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
