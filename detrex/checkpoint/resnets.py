"""Weights of ResNets: who trained them, under which names, and on which images.

The same numbers mean different networks. Weights by MSRA (detectron2's ``MSRA/R-50.pkl``) have the
stride in the 1x1 convolutions and want BGR images of deviation 1; those by torchvision and timm
have it in the 3x3 and want normalized RGB. Names tell which is which, shapes do not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from detrex.utils.weight_files import CheckpointError

logger = logging.getLogger(__name__)

_FIRST_CONV = "stem.conv1.weight"
_BACKBONE = r"(?:backbone\.)?(?:body\.)?"


def _torchvision_stage(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    block = rf"{_BACKBONE}{theirs}\.(\d+)"
    return (
        (rf"{block}\.(conv\d\..*)", rf"backbone.{ours}.\1.\2"),
        (rf"{block}\.bn(\d)\.(.*)", rf"backbone.{ours}.\1.conv\2.norm.\3"),
        (rf"{block}\.downsample\.0\.(.*)", rf"backbone.{ours}.\1.shortcut.\2"),
        (rf"{block}\.downsample\.1\.(.*)", rf"backbone.{ours}.\1.shortcut.norm.\2"),
    )


TORCHVISION: tuple[tuple[str, str], ...] = (
    (rf"{_BACKBONE}conv1\.weight", r"backbone.stem.conv1.weight"),
    (rf"{_BACKBONE}bn1\.(.*)", r"backbone.stem.conv1.norm.\1"),
    *_torchvision_stage("layer1", "res2"),
    *_torchvision_stage("layer2", "res3"),
    *_torchvision_stage("layer3", "res4"),
    *_torchvision_stage("layer4", "res5"),
    (rf"{_BACKBONE}fc\.(.*)", r"backbone.linear.\1"),
)
"""ResNets of torchvision and timm, alone or within a detector."""

DETECTRON2: tuple[tuple[str, str], ...] = (
    (r"(?:bottom_up\.)?((?:stem|res[2-5]|linear)\..*)", r"backbone.\1"),
    (r"stem\.fc\.(.*)", r"backbone.linear.\1"),  # as detectron2's converter leaves it
)
"""ResNets of detectron2, without the detector around them."""

_BLOB_CONVS = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
_BLOB_PARTS = {
    "w": "weight",
    "(?:bn|gn)_(?:s|gamma)": "norm.weight",
    "(?:bn|gn)_(?:b|beta)": "norm.bias",
    "bn_(?:rm|running_mean)": "norm.running_mean",
    "bn_(?:riv|running_var)": "norm.running_var",
}

CAFFE2: tuple[tuple[str, str], ...] = tuple(
    (rf"{theirs}_{part}", rf"backbone.{ours}.{ours_part}")
    for theirs, ours in (
        (r"(?:res_)?conv1", "stem.conv1"),
        *((rf"res([2-5])_(\d+)_{k}", rf"res\1.\2.{v}") for k, v in _BLOB_CONVS.items()),
    )
    for part, ours_part in _BLOB_PARTS.items()
)
"""ResNets by Caffe2, as detectron2's model zoo has them."""


@dataclass(frozen=True)
class _Origin:
    """Who trained a network, and what it needs to compute the same again."""

    name: str
    stride_in_1x1: bool
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    order: str


_TORCHVISION = _Origin(
    "torchvision or timm", False, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB"
)
_MSRA = _Origin("MSRA (Caffe2)", True, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR")
# ResNeXt in detectron2's zoo was trained by FAIR: the images of Caffe2, the stride of torchvision
_FAIR = _Origin("FAIR (Caffe2)", False, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "BGR")


def with_statistics(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``source`` with the running statistics that Caffe2 folded into scale and bias.

    The mean is then 0 and the variance 1, less what a norm adds to it.
    """
    complete = dict(source)
    for name, scale in source.items():
        match = re.fullmatch(r"(.*_bn)_s", name)
        if match and f"{match[1]}_rm" not in source:
            complete[f"{match[1]}_rm"] = torch.zeros_like(scale)
            complete[f"{match[1]}_riv"] = torch.full_like(scale, 1 - 1e-5)
    return complete


def adapt_first_conv(place: str, weight: Tensor, wanted: Tensor) -> Tensor:
    """Weights of a ResNet's first convolution for images of another number of channels.

    One channel gets the sum over colors, more repeat them at a lower weight; what is no such
    convolution is returned as it is.
    """
    have, want = weight.shape, wanted.shape
    if not place.endswith(_FIRST_CONV) or have[1] != 3 or want[1] == 3:
        return weight
    if (have[0], *have[2:]) != (want[0], *want[2:]):
        return weight
    logger.info("%s: adapted from 3 channels to %d.", place, want[1])
    return adapt_input_conv(want[1], weight)


def check_origin(model: nn.Module, places: Mapping[str, Sequence[str]]) -> None:
    """Compare a ResNet, and how its images are normalized, with where its weights come from.

    Args:
        model: a detector, with its ``pixel_mean`` and ``pixel_std``, or a ResNet.
        places: for each name in the source the names in the model that it goes to.

    Raises:
        CheckpointError: weights by MSRA would go into a network that has the stride in its 3x3
            convolutions. What may be meant is only warned of.
    """
    stems = {name: p[0] for name, p in places.items() if p and p[0].endswith(_FIRST_CONV)}
    for name, place in stems.items():
        modules = dict(model.named_modules())
        block = f"{place.removesuffix(_FIRST_CONV)}res3.0"
        conv1, conv2 = modules.get(f"{block}.conv1"), modules.get(f"{block}.conv2")
        if name.endswith("conv1_w"):
            origin = _FAIR if isinstance(conv2, nn.Conv2d) and conv2.groups > 1 else _MSRA
        elif name.endswith(_FIRST_CONV):  # detectron2's names, which all of them are known under
            continue
        else:
            origin = _TORCHVISION
        if isinstance(conv1, nn.Conv2d) and conv1.kernel_size == (1, 1):
            _check_stride(origin, conv1.stride[0] > 1)
        _check_pixels(origin, dict(model.named_buffers()))


def _check_stride(origin: _Origin, stride_in_1x1: bool) -> None:
    if stride_in_1x1 == origin.stride_in_1x1:
        return
    kernel, other = ("1x1", "3x3") if origin.stride_in_1x1 else ("3x3", "1x1")
    message = (
        f"These are weights by {origin.name}, which have the stride in the {kernel} convolutions, "
        f"but this ResNet has it in the {other}: build it with "
        f"stride_in_1x1={origin.stride_in_1x1} or take other weights."
    )
    if origin.stride_in_1x1:
        raise CheckpointError(message)
    logger.warning(message)  # some of Caffe's weights go under torchvision's names


def _check_pixels(origin: _Origin, buffers: Mapping[str, Tensor]) -> None:
    for name, wanted in (("pixel_mean", origin.pixel_mean), ("pixel_std", origin.pixel_std)):
        values = buffers[name].flatten().tolist() if name in buffers else []
        if len(values) == 3 and any(abs(a - b) > 0.01 for a, b in zip(values, wanted, strict=True)):
            logger.warning(
                "These are weights by %s, which expect %s images with %s=%s, but the model has "
                "%s; set model.%s, and the mapper's img_format to %s.",
                *(origin.name, origin.order, name, list(wanted)),
                *([round(v, 3) for v in values], name, origin.order),
            )
