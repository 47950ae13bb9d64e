"""Command line overrides: hydra's grammar, and no key that nobody reads."""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, ListConfig, open_dict
from omegaconf.errors import ConfigKeyError


class _Kind(Enum):
    CHANGE = "change"
    ADD = "add"
    DELETE = "delete"


@dataclass(frozen=True)
class _Override:
    text: str
    key: str
    kind: _Kind
    value: Any
    has_value: bool


def apply_overrides(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """Apply ``key=value`` strings to ``cfg`` in place, all of them or none.

    Raises:
        ConfigKeyError: a key does not exist and is no argument of its parent's target either.
        ValueError: a text is not an override, or its value does not fit.
    """
    parsed = [_parse(text) for text in overrides]
    # omegaconf copies the containers only: live objects, such as modules, are shared.
    trial = copy.deepcopy(cfg)
    for override in parsed:
        _apply(trial, override)
    for override in parsed:
        _apply(cfg, override)
    return cfg


# Parsing ----------------------------------------------------------------------------------


def _parse(text: str) -> _Override:
    text = _with_dots(text)
    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException as e:
        parsed = _parse_plain_text(text, e)
    key = parsed.key_or_group
    if not key or parsed.package is not None:
        raise ValueError(f"The override {text!r} has no valid key; write it as key.subkey=value.")
    if parsed.is_sweep_override():
        raise ValueError(
            f"The value of the override {text!r} looks like several values; write a list as "
            f"{key}=[a,b] and text with commas or brackets as {key}='...'."
        )
    kind = _Kind.CHANGE
    if parsed.is_delete():
        kind = _Kind.DELETE
    elif parsed.is_add() or parsed.is_force_add():
        kind = _Kind.ADD
    return _Override(text, key, kind, parsed.value(), "=" in text)


def _with_dots(text: str) -> str:
    """``a[1].b=...``, as omegaconf writes keys, with the index between dots, as hydra reads it."""
    key, equals, value = text.partition("=")
    return re.sub(r"\[([^\[\]]+)\]", r".\1", key) + equals + value


def _parse_plain_text(text: str, error: HydraException) -> HydraOverride:
    """Take a value that is no hydra value, such as ``/a/b=c.pth``, as text.

    What starts like a list, a dictionary or a quoted text was meant to be one and is refused.
    """
    match = re.fullmatch(r"([^=]+)=([^=\[{('\"].*)", text, re.DOTALL)
    if match is None:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"The override {text!r} cannot be read ({reason}); write key=value, and put "
            f"values with special characters in quotes: \"key='value'\"."
        ) from error
    try:
        parsed = OverridesParser.create().parse_override(f"{match[1]}=text")
    except HydraException as e:
        raise ValueError(f"The override {text!r} has no valid key: {e}") from e
    parsed._value = match[2]
    return parsed


# Applying ---------------------------------------------------------------------------------


def _apply(cfg: DictConfig, override: _Override) -> None:
    *path, last = override.key.split(".")
    parent: Any = cfg
    for depth, part in enumerate(path):
        parent = _descend(cfg, parent, part, override, ".".join(path[: depth + 1]))
    index = _index(parent, last)
    if override.kind is _Kind.DELETE:
        _delete(cfg, parent, index, override)
    elif _has(parent, index) and override.kind is _Kind.ADD and _is_list(parent, index):
        value = override.value
        parent[index].extend(value if isinstance(value, list) else [value])
    elif _has(parent, index):
        _replace(cfg, parent, index, override.value, override.key, override)
    else:
        _insert(cfg, parent, index, override.value, override.key, override)


def _descend(cfg: DictConfig, parent: Any, part: str, override: _Override, path: str) -> Any:
    """The config at ``path``, which is ``part`` of ``parent``."""
    index = _index(parent, part)
    if not _has(parent, index):
        if override.kind is not _Kind.ADD or isinstance(parent, ListConfig):
            raise _unknown(cfg, override, path)
        with open_dict(parent):
            parent[index] = {}
    child = parent[index]
    if not isinstance(child, Container):
        raise ConfigKeyError(
            f"Cannot apply the override {override.text!r}: {path} is not a config with keys but "
            f"the value {child!r}."
        )
    return child


def _index(parent: Container, part: str) -> Any:
    """``part`` as the type of key that ``parent`` has."""
    if isinstance(parent, ListConfig):
        return int(part) if re.fullmatch(r"-?\d+", part) else part
    if part.isdigit() and part not in parent and int(part) in parent:
        return int(part)
    return part


def _has(parent: Container, index: Any) -> bool:
    if isinstance(parent, ListConfig):
        return isinstance(index, int) and -len(parent) <= index < len(parent)
    # ``in`` is false for keys whose value is missing ("???") or an unresolvable interpolation.
    return not parent._is_none() and index in list(parent)


def _is_list(parent: Container, index: Any) -> bool:
    node = parent._get_node(index)
    hollow = isinstance(node, ListConfig) and (
        node._is_none() or node._is_missing() or node._is_interpolation()
    )
    return isinstance(node, ListConfig) and not hollow


def _delete(cfg: DictConfig, parent: Any, index: Any, override: _Override) -> None:
    if not _has(parent, index):
        raise _unknown(cfg, override, override.key)
    if override.has_value and parent[index] != override.value:
        raise ValueError(
            f"The override {override.text!r} does not apply: {override.key} is {parent[index]!r}."
        )
    with open_dict(parent) if isinstance(parent, DictConfig) else contextlib.nullcontext():
        del parent[index]


def _replace(
    cfg: DictConfig, parent: Any, index: Any, value: Any, key: str, override: _Override
) -> None:
    """Set an existing entry; dictionaries are merged into dictionaries."""
    node = parent._get_node(index)
    is_branch = isinstance(node, DictConfig) and not (node._is_none() or node._is_interpolation())
    if is_branch and isinstance(value, dict):
        _merge(cfg, node, value, key, override)
    elif is_branch and not _may_replace_branch(value):
        raise ValueError(
            f"The override {override.text!r} would replace the whole of {key}, which has the keys "
            f"{_listed(node)}; set one of them, as in {key}.{_first(node)}=..., "
            f"or give a dictionary or null."
        )
    else:
        parent[index] = value


def _may_replace_branch(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.startswith("${"))


def _merge(
    cfg: DictConfig, node: DictConfig, value: dict[Any, Any], key: str, override: _Override
) -> None:
    # The target goes first: the other keys may be arguments of the new one.
    for name in sorted(value, key=lambda k: k != "_target_"):
        path = f"{key}.{name}"
        if _has(node, name):
            _replace(cfg, node, name, value[name], path, override)
        else:
            _insert(cfg, node, name, value[name], path, override)


def _insert(
    cfg: DictConfig, parent: Any, index: Any, value: Any, key: str, override: _Override
) -> None:
    """Add an entry that was asked for by ``+`` (of a list, the next one) or that the parent's
    target takes."""
    if isinstance(parent, ListConfig):
        if override.kind is not _Kind.ADD or index != len(parent):
            raise _unknown(cfg, override, key)
        parent.append(value)
        return
    if override.kind is not _Kind.ADD:
        named, takes_any = _arguments_of(parent)
        if index not in named and not takes_any:
            raise _unknown(cfg, override, key)
        # A target that takes any name still has names that a similar one was meant to be.
        if index not in named and _is_like_one_of(index, named | set(parent)):
            raise _unknown(cfg, override, key)
    with open_dict(parent):
        parent[index] = value


def _arguments_of(parent: DictConfig) -> tuple[set[str], bool]:
    """Names of the arguments of the parent's ``_target_``, and whether it takes any name."""
    target = parent.get("_target_")
    try:
        target = locate(target) if isinstance(target, str) else target
        parameters = inspect.signature(target).parameters.values()
    except (ImportError, TypeError, ValueError):
        # Not a target, or one whose arguments nobody can know: ``+`` is needed then.
        return set(), False
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _is_like_one_of(name: Any, known: set[Any]) -> bool:
    return bool(difflib.get_close_matches(str(name), map(str, known), n=1, cutoff=0.85))


# Messages ---------------------------------------------------------------------------------


def _unknown(cfg: DictConfig, override: _Override, key: str) -> ConfigKeyError:
    """The error for an override whose ``key`` (or a part of it) is not in the config."""
    close = _nearest(cfg, max(key, override.key, key=len))
    parts = [f"The key {key} of the override {override.text!r} does not exist in the config."]
    if close:
        parts.append(f"Did you mean {' or '.join(close)}?")
    if override.kind is _Kind.CHANGE:
        parts.append(f"To add a new key write +{override.text}.")
    return ConfigKeyError(" ".join(parts))


def _nearest(cfg: DictConfig, key: str) -> list[str]:
    """Up to three existing keys that ``key`` may stand for, best first."""
    known = list(dict.fromkeys(_all_keys(cfg, "")))
    folder, _, last = key.rpartition(".")

    def score(candidate: str) -> float:
        name = difflib.SequenceMatcher(None, last, candidate.rpartition(".")[2]).ratio()
        path = difflib.SequenceMatcher(None, key, candidate).ratio()
        # A name alone may be meant at any depth; of a path the rest has to fit as well.
        if min(name, path) < 0.6 and (folder or name < 0.8):
            return 0.0
        return name + path

    best = sorted(known, key=score, reverse=True)[:3]
    return [k for k in best if score(k) > max(0.0, score(best[0]) - 0.3)]


def _all_keys(cfg: Any, prefix: str) -> Iterator[str]:
    """Dotted paths of all entries, and of the arguments that targets take."""
    if isinstance(cfg, ListConfig):
        items = [(str(i), cfg._get_node(i)) for i in range(len(cfg))]
    else:
        items = [(str(k), cfg._get_node(k)) for k in cfg]
        for name in sorted(_arguments_of(cfg)[0]) if "_target_" in cfg else ():
            yield prefix + name
    for name, node in items:
        yield prefix + name
        hollow = isinstance(node, Container) and (
            node._is_none() or node._is_missing() or node._is_interpolation()
        )
        if isinstance(node, Container) and not hollow:
            yield from _all_keys(node, f"{prefix}{name}.")


def _first(node: DictConfig) -> str:
    return next((str(k) for k in node if k != "_target_"), "key")


def _listed(node: DictConfig) -> str:
    keys = [str(k) for k in node]
    return ", ".join(keys[:12]) + (", ..." if len(keys) > 12 else "") or "none"
