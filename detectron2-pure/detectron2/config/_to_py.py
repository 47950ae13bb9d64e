"""Configs as Python-like text, for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.config.instantiate import target_name
from omegaconf import OmegaConf, SCMode

WIDTH = 88


def config_to_py(cfg: Any, prefix: str) -> str:
    """One assignment per leaf, each with ``prefix``; targets look like calls."""
    plain = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    name = prefix.removesuffix(".")
    lines = [f"{key} = {_expression(value, len(key) + 3)}" for key, value in _walk(plain, name)]
    return "\n".join(lines) + "\n"


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of each part that one assignment can hold."""
    is_branch = isinstance(value, Mapping) and value and "_target_" not in value
    if is_branch and all(isinstance(k, str) and k.isidentifier() for k in value):
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _expression(value: Any, used: int = 0, indent: int = 0) -> str:
    """``value`` as black would lay it out beside ``used`` columns: in one line; with the arguments
    of a call in a second one; or with a line for each item.
    """
    opening, items, closing = _items(value)
    body = ", ".join(label + _expression(v, -(10**6)) for label, v in items)
    if used + len(opening + body + closing) <= WIDTH:
        return opening + body + closing
    inner = " " * (indent + 4)
    if not items:
        parenthesize = not indent and len(inner + opening) <= WIDTH
        return f"(\n{inner}{opening}\n)" if parenthesize else opening
    if len(inner + body) > WIDTH or (closing != ")" and len(items) > 1):
        comma = "," if len(items) > 1 else ""
        body = f"\n{inner}".join(
            label + _expression(v, len(inner + label + comma), indent + 4) + comma
            for label, v in items
        )
    return f"{opening}\n{inner}{body}\n{' ' * indent}{closing}"


def _items(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """Opening text, labelled items and closing text of a call, dictionary, list or leaf."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            target = value["_target_"]
            name = target if isinstance(target, str) else _called(target)
            items = [(f"{k}=", v) for k, v in value.items() if k != "_target_"]
            return f"{name}(", items, ")"
        return "{", [(f"{_quote(k)}: ", v) for k, v in value.items()], "}"
    if isinstance(value, list):
        return "[", [("", v) for v in value], "]"
    if isinstance(value, tuple):
        return "(", [("", v) for v in value], ")" if len(value) != 1 else ",)"
    return _leaf(value), [], ""


def _called(target: Any) -> str:
    return _expression(target) if isinstance(target, Mapping) else target_name(target)


def _leaf(value: Any) -> str:
    if isinstance(value, str):
        return _quote(value)
    if callable(value):
        return target_name(value)
    return repr(value)


def _quote(value: Any) -> str:
    """A literal with double quotes where that needs no escapes."""
    text = repr(value)
    if text.startswith("'") and '"' not in text and "\\" not in text:
        return f'"{text[1:-1]}"'
    return text
