"""Matching checkpoint names with model names when the two differ."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

logger = logging.getLogger(__name__)

_C2_RULES: tuple[tuple[str, str], ...] = (
    # suffixes: Caffe2 writes w/b and, for normalization, s(cale)/b and running statistics
    (r"\.b$", ".bias"),
    (r"\.w$", ".weight"),
    (r"\.(?:bn|gn)\.(?:s|gamma|weight)$", ".norm.weight"),
    (r"\.(?:bn|gn)\.(?:beta|bias)$", ".norm.bias"),
    (r"\.bn\.(?:rm|running\.mean)$", ".norm.running_mean"),
    (r"\.bn\.(?:riv|running\.var)$", ".norm.running_var"),
    # the ResNet layers
    (r"^res\.conv1\.norm\.", "conv1.norm."),
    (r"^conv1\.", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
)


def convert_c2_name(name: str) -> str:
    """Name of a Caffe2 ResNet blob in detectron2's ResNet.

    >>> convert_c2_name("res2_0_branch2a_bn_s")
    'res2.0.conv1.norm.weight'
    """
    name = name.replace("_", ".")
    for pattern, replacement in _C2_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def convert_c2_detectron_names(
    weights: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Rename Caffe2 backbone blobs.

    Returns:
        the renamed weights, and a dict from each new name to the original one.
    """
    original = {convert_c2_name(name): name for name in weights}
    return {new: weights[old] for new, old in original.items()}, original


def align_and_update_state_dicts(
    model_state_dict: Mapping[str, torch.Tensor],
    ckpt_state_dict: Mapping[str, torch.Tensor],
    c2_conversion: bool = True,
) -> dict[str, torch.Tensor]:
    """Give checkpoint tensors the names that a model has for them.

    A checkpoint name belongs to a model name if it equals it or is a suffix of it after a dot
    (``res2.0.conv1.weight`` for ``backbone.res2.0.conv1.weight``). The longest such name wins. If
    the checkpoint name is itself a name of the model, it stands for that one alone. Tensors of
    another shape are skipped with a warning.

    Args:
        model_state_dict: names and tensors of the model.
        ckpt_state_dict: names and tensors of the checkpoint; not modified.
        c2_conversion: whether to convert Caffe2 names first.

    Returns:
        matched tensors under the names of the model, the others under their own.

    Raises:
        ValueError: one checkpoint tensor fits several different tensors of the model equally well.
    """
    if c2_conversion:
        ckpt_state_dict, original = convert_c2_detectron_names(ckpt_state_dict)
    else:
        original = {name: name for name in ckpt_state_dict}
    aligned: dict[str, torch.Tensor] = {}
    used: dict[str, str] = {}
    for name in sorted(model_state_dict):
        match = _longest_suffix(name, ckpt_state_dict)
        if match is None or (match != name and match in model_state_dict):
            continue
        if not _same_shape(name, model_state_dict[name], original[match], ckpt_state_dict[match]):
            continue
        if match in used and not _tied(model_state_dict, used[match], name):
            raise ValueError(
                "Cannot match one checkpoint key to multiple keys in the model: "
                f"{original[match]} fits both {used[match]} and {name}; rename it in the file."
            )
        aligned[name] = ckpt_state_dict[match]
        used[match] = name
    unmatched = {k: v for k, v in ckpt_state_dict.items() if k not in used and k not in aligned}
    _log_matches(used, original, len(model_state_dict), unmatched)
    return {**aligned, **unmatched}


def _longest_suffix(name: str, candidates: Mapping[str, Any]) -> str | None:
    """The longest of ``name``, ``name`` without its first part, ... that is a candidate."""
    suffix = name
    while suffix not in candidates:
        _, dot, suffix = suffix.partition(".")
        if not dot:
            return None
    return suffix


def _same_shape(name: str, tensor: torch.Tensor, ckpt_name: str, value: torch.Tensor) -> bool:
    if tuple(tensor.shape) == tuple(value.shape):
        return True
    logger.warning(
        f"Shape of {ckpt_name} in checkpoint is {tuple(value.shape)}, while shape of {name} in "
        f"model is {tuple(tensor.shape)}. {ckpt_name} will not be loaded. "
        "Please double check and see if this is desired."
    )
    return False


def _tied(state: Mapping[str, torch.Tensor], first: str, second: str) -> bool:
    """Whether two names of the model stand for the same memory."""
    return state[first].data_ptr() == state[second].data_ptr() and state[first].numel() > 0


def _log_matches(
    used: Mapping[str, str], original: Mapping[str, str], total: int, unmatched: Iterable[str]
) -> None:
    lines = [f"  {name} <- {original[ckpt]}" for ckpt, name in used.items()]
    logger.debug("Matched by name:\n" + "\n".join(lines))
    rest = [original[name] for name in unmatched]
    logger.info(
        f"Matched {len(used)} checkpoint tensors with the model's {total} by the end of their "
        f"names; {len(rest)} left over" + (f" ({', '.join(rest[:5])}, ...)." if rest else ".")
    )
