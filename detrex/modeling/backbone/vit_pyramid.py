"""The feature pyramid of ViTDet (arXiv:2203.16527) that holds the network it stands on.

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import inspect
from typing import Any

from detectron2.modeling import backbone

from detrex.modeling.backbone import feature_pyramid

__all__ = ["SimpleFeaturePyramid"]


class _SignatureOfInit:
    """What a class takes, for whoever asks ``inspect.signature`` in spite of a ``__new__``."""

    def __get__(self, _: object, owner: type) -> inspect.Signature:
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class SimpleFeaturePyramid(backbone.SimpleFeaturePyramid):
    """A network and the pyramid on its one map: (B, C, H, W) -> {name: map}, finest first.

    It is detectron2's, with its arguments (``net``, ``in_feature``, ``out_channels``,
    ``scale_factors``, ``top_block``, ``norm``, ``square_pad``), names of levels (``p3`` of stride
    8) and of parameters (``net.*``, ``simfp_3.*``). With ``square_pad`` images are padded to
    squares of so many pixels a side, as the published models were trained, and larger ones are
    refused; 0 leaves them their size, which EVA and EVA-02 take as well.

    With ``in_channels``, ``in_stride`` and ``out_strides`` instead it is the pyramid alone, for
    one map: :class:`detrex.modeling.backbone.feature_pyramid.SimpleFeaturePyramid`.
    """

    # Strict overrides of configs ask a class what it takes.
    __signature__ = _SignatureOfInit()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """The class for the arguments; ``__init__`` follows only if it is this one."""
        if "in_channels" in kwargs or (args and isinstance(args[0], int)):
            return feature_pyramid.SimpleFeaturePyramid(*args, **kwargs)
        return super().__new__(cls)
