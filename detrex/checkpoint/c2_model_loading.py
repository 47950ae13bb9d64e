"""detectron2's functions for weights by Caffe2, and for names that differ at their beginnings.

:func:`~detrex.checkpoint.load_weights` understands such files by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from detectron2.checkpoint.c2_model_loading import (
    align_and_update_state_dicts,
    convert_c2_detectron_names,
)

__all__ = [
    "align_and_update_state_dicts",
    "convert_basic_c2_names",
    "convert_c2_detectron_names",
]


def convert_basic_c2_names(original_keys: Iterable[str]) -> list[str]:
    """Names of Caffe2's ResNet blobs in detectron2's ResNet, in the same order.

    >>> convert_basic_c2_names(["res2_0_branch2a_bn_s"])
    ['res2.0.conv1.norm.weight']
    """
    names = list(original_keys)
    _, originals = convert_c2_detectron_names({name: name for name in names})
    renamed = {original: new for new, original in originals.items()}
    return [renamed[name] for name in names]
