"""Models made ready to be run rather than trained."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.modeling.backbone import fold_frozen_norms
from detrex.utils.allocator import keep_freed_memory

Detector = TypeVar("Detector", bound=nn.Module)

MANY_TOKENS = 1024
"""Below this many tokens the convolution is not faster."""


class ConvolvedLinear(nn.Linear):
    """A linear layer that computes many tokens as a convolution on the CPU, by the same weights.

    On x86 torch's matrix products are MKL's and write the bias first, its convolutions oneDNN's.
    With two threads or more the latter are faster (docs/benchmarks.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features) -> (..., out_features)``."""
        num_tokens = math.prod(input.shape[:-1])  # numel() would make a symbolic size a number
        if num_tokens < MANY_TOKENS or not input.is_cpu:
            return F.linear(input, self.weight, self.bias)
        column = input.reshape(1, num_tokens, 1, -1).contiguous().permute(0, 3, 1, 2)
        out = F.conv2d(column, self.weight[:, :, None, None], self.bias)
        return out.permute(0, 2, 3, 1).reshape(*input.shape[:-1], -1)


class TensorDetector(nn.Module):
    """A detector whose ``forward`` is :meth:`~detrex.modeling.detr.DETR.detect`.

    It is what :func:`torch.export.export` takes, with batch, height and width dynamic::

        dims = {0: Dim("batch", min=1), 2: Dim.AUTO, 3: Dim.AUTO}
        program = torch.export.export(TensorDetector(model), (images,), dynamic_shapes=(dims,))

    The example has two images or more, since torch takes a single one for a constant. The program
    takes any number.

    Args:
        model: a :class:`~detrex.modeling.detr.DETR`, in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of images ``(B, channels, H, W)`` of ``sizes (B, 2)``."""
        return self.model.detect(images, sizes)  # type: ignore[operator]


def _convolve_linear_layers(model: nn.Module) -> None:
    """In place, where it pays."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return
    for module in model.modules():
        weight = module.weight if type(module) is nn.Linear else None
        if weight is not None and weight.is_cpu and weight.dtype in (torch.float32, torch.bfloat16):
            module.__class__ = ConvolvedLinear


def _convert(model: Any, dtype: torch.dtype, backbone_dtype: torch.dtype) -> None:
    """In place; between backbone and neck features change from the one dtype to the other."""
    if backbone_dtype == dtype:
        model.to(dtype)
        return
    backbone = copy.deepcopy(model.backbone).to(backbone_dtype)
    model.to(dtype).backbone = backbone
    backbone.register_forward_pre_hook(lambda _, args: args[0].to(backbone_dtype))
    backbone.register_forward_hook(
        lambda _, args, maps: {name: level.to(dtype) for name, level in maps.items()}
    )


def for_inference(
    model: Detector,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    backbone_dtype: torch.dtype | None = None,
    **compile_options: Any,
) -> Detector:
    """A copy of ``model`` that gives the same detections sooner.

    Frozen norms become part of their convolutions, and convolutions read their input channels last.
    On the CPU linear layers become convolutions where that is faster, and the process keeps freed
    memory from then on (:func:`~detrex.utils.allocator.keep_freed_memory`). Not for
    :func:`torch.export.export`, which wants the model itself.

    Args:
        model: a detector such as :class:`~detrex.modeling.detr.DETR`, on its device and with its
            weights; it is not changed.
        dtype: of weights and features; None leaves it. ``torch.bfloat16`` pays where the hardware
            multiplies it faster (GPUs, CPUs with AMX or AVX-512 BF16); points and boxes keep single
            precision.
        compile: compile ``model.predict``, all that the model does between preprocessing and
            post-processing, by
            :func:`torch.compile`, for each image size anew unless ``dynamic=True``. On a CPU that
            needs a C++ compiler.
        backbone_dtype: of the backbone, if another than ``dtype``. Most of what half precision
            moves boxes by comes from there (docs/benchmarks.md).
        compile_options: further arguments of :func:`torch.compile`.

    Returns:
        the copy, in evaluation mode and without gradients. Its state dict has other names.

    Raises:
        ValueError: ``backbone_dtype`` without the ``dtype`` of the rest.
    """
    if dtype is None and backbone_dtype is not None:
        raise ValueError(f"backbone_dtype={backbone_dtype} needs dtype, that of all the rest.")
    fast: Any = fold_frozen_norms(model).to(memory_format=torch.channels_last)
    if dtype is not None:
        _convert(fast, dtype, backbone_dtype or dtype)
    _convolve_linear_layers(fast)
    if any(parameter.device.type == "cpu" for parameter in fast.parameters()):
        keep_freed_memory()
    if compile:
        fast.predict = torch.compile(fast.predict, **compile_options)
    return cast(Detector, fast)
