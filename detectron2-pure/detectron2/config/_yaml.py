"""Configs as yaml: written for people, read without running anything."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import re
import sys
from typing import Any

import numpy as np
import yaml
from detectron2.config.errors import located
from detectron2.config.instantiate import dump_dataclass
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import OmegaConf, SCMode

_PYTHON = "tag:yaml.org,2002:python/"
_UNREPRESENTABLE = "!unrepresentable"
# yaml 1.1 takes 1e-4 for text: it wants a dot in the number and a sign in the exponent.
_EXPONENT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"))


def dump_config(cfg: Any) -> tuple[str, list[str]]:
    """The yaml text of a config, and what it could not express.

    Targets are dotted names, interpolations stay unresolved, and dataclass instances become
    mappings with a ``_target_``. Importable classes and functions are named by a tag. Other
    objects are written as text under a tag that does not load again; their texts are listed.
    """
    plain = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    dumper = _dumper()
    text = yaml.dump(
        _with_target_names(plain),
        Dumper=dumper,
        default_flow_style=None,
        allow_unicode=True,
        sort_keys=False,
        width=9999,
    )
    return text, dumper.lost


def load_yaml(text: str, filename: str) -> Any:
    """The content of a yaml config; ``filename`` is for messages.

    Python tags give plain data (tuples become lists, ``object`` a mapping with ``_target_``);
    ``name`` gives a class or function of a package that the program has imported already.

    Raises:
        ConfigError, yaml.YAMLError: the text is not yaml, or has other tags.
    """
    try:
        content = yaml.load(text, Loader=_SafeConfigLoader)
    except yaml.YAMLError as e:
        raise located(e, f"Config file {filename} cannot be read: {e}") from e
    return {} if content is None else content


def _with_target_names(value: Any) -> Any:
    if isinstance(value, dict):
        items = {key: _with_target_names(item) for key, item in value.items()}
        target = value.get("_target_")
        if callable(target) and _is_importable(target):
            items["_target_"] = _convert_target_to_string(target)
        return items
    if isinstance(value, list):
        return [_with_target_names(item) for item in value]
    return value


def _is_importable(obj: Any) -> bool:
    named = inspect.isroutine(obj) or inspect.isclass(obj)
    if not named or not getattr(obj, "__module__", None):
        return False
    try:
        return locate(_convert_target_to_string(obj)) == obj
    except ImportError:
        return False


def _dumper() -> Any:
    """A dumper class that collects in ``lost`` what it had no notation for."""

    class ConfigDumper(yaml.SafeDumper):
        lost: list[str] = []

        def ignore_aliases(self, data: Any) -> bool:
            # Equal sub-trees are spelled out: anchors make a config hard to read and edit.
            return True

        def represent_other(self, data: Any) -> yaml.Node:
            if dataclasses.is_dataclass(data) and not isinstance(data, type):
                return self.represent_data(dump_dataclass(data))
            for plain in (int, float, str):  # subclasses of these, such as enums
                if isinstance(data, plain):
                    return self.represent_data(plain(data))
            if isinstance(data, np.generic):
                return self.represent_data(data.item())
            if isinstance(data, pathlib.PurePath):
                return self.represent_str(str(data))
            if _is_importable(data):
                name = _convert_target_to_string(data)
                return self.represent_scalar(f"{_PYTHON}name:{name}", "")
            self.lost.append(repr(data))
            return self.represent_scalar(_UNREPRESENTABLE, repr(data))

    ConfigDumper.add_implicit_resolver(*_EXPONENT, list("-+0123456789"))
    ConfigDumper.add_representer(tuple, yaml.SafeDumper.represent_list)
    ConfigDumper.add_multi_representer(object, ConfigDumper.represent_other)
    return ConfigDumper


class _SafeConfigLoader(yaml.SafeLoader):
    """yaml's safe loader with the harmless part of the Python tags."""

    def construct_python_sequence(self, node: yaml.Node) -> list[Any]:
        return self.construct_sequence(node, deep=True)

    def construct_python_object(self, suffix: str, node: yaml.Node) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            return self.refuse(node)
        return {"_target_": suffix, **self.construct_mapping(node, deep=True)}

    def construct_python_name(self, suffix: str, node: yaml.Node) -> Any:
        package = suffix.split(".")[0]
        if package not in sys.modules:
            raise yaml.constructor.ConstructorError(
                problem=f"the object {suffix} is not looked up because the package {package} "
                "has not been imported; import it first if you trust it",
                problem_mark=node.start_mark,
            )
        try:
            return locate(suffix)
        except ImportError as e:
            raise yaml.constructor.ConstructorError(
                problem=str(e), problem_mark=node.start_mark
            ) from e

    def refuse(self, node: yaml.Node) -> Any:
        raise yaml.constructor.ConstructorError(
            problem=f"the tag {node.tag} would run code, which a yaml config may not",
            problem_mark=node.start_mark,
        )

    def refuse_unrepresentable(self, node: yaml.Node) -> Any:
        raise yaml.constructor.ConstructorError(
            problem=f"the value {node.value} was a Python object that yaml cannot hold; load the "
            "Python config instead (the .pkl file beside this one holds the whole config)",
            problem_mark=node.start_mark,
        )


_SafeConfigLoader.add_implicit_resolver(*_EXPONENT, list("-+0123456789"))
_SafeConfigLoader.add_constructor(f"{_PYTHON}tuple", _SafeConfigLoader.construct_python_sequence)
_SafeConfigLoader.add_multi_constructor(
    f"{_PYTHON}object:", _SafeConfigLoader.construct_python_object
)
_SafeConfigLoader.add_multi_constructor(f"{_PYTHON}name:", _SafeConfigLoader.construct_python_name)
_SafeConfigLoader.add_multi_constructor(_PYTHON, lambda loader, suffix, node: loader.refuse(node))
_SafeConfigLoader.add_constructor(_UNREPRESENTABLE, _SafeConfigLoader.refuse_unrepresentable)
