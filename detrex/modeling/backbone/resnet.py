"""detectron2's ResNet (arXiv:1512.03385) as detection transformers use it.

Letters: B batch, C channels, H height, W width.

Network, blocks and parameter names are detectron2's: a stem and up to four stages, ``res2`` to
``res5``; each stage is a sequence of blocks and opens with the block that changes stride and width.
Stages behind the last requested feature are not kept, so that every parameter of a backbone takes
part in its outputs. What is added here: gradient checkpointing, the pixels that the weights expect,
the dilated and deformable stages of :func:`make_stage`, and errors that name what is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone import resnet
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import Tensor, nn

from detrex.modeling.backbone.checkpointing import run_checkpointed
from detrex.modeling.backbone.pixels import (
    CAFFE_BGR,
    IMAGENET_RGB,
    PixelProperties,
    PixelStatistics,
)
from detrex.modeling.backbone.resnet_blocks import DeformBottleneckBlock

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "make_stage",
]

Norm = str | Callable[[int], nn.Module] | None

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STAGE_NAMES = ("res2", "res3", "res4", "res5")


def _blocks_per_stage(depth: int) -> tuple[int, ...]:
    if depth not in BLOCKS_PER_STAGE:
        nearest = min(BLOCKS_PER_STAGE, key=lambda known: abs(known - depth))
        raise ValueError(
            f"There is no ResNet of depth {depth}; the depths are {sorted(BLOCKS_PER_STAGE)}, "
            f"the nearest is {nearest}."
        )
    return BLOCKS_PER_STAGE[depth]


def _check_chain(stem: CNNBlockBase, stages: Sequence[Sequence[CNNBlockBase]]) -> None:
    """Require that each block takes as many channels as the one before it gives."""
    channels = stem.out_channels
    for name, blocks in zip(_STAGE_NAMES, stages, strict=False):
        if not blocks:
            raise ValueError(f"Stage {name} has no blocks.")
        for index, block in enumerate(blocks):
            if block.in_channels != channels:
                raise ValueError(
                    f"Block {name}.{index} takes {block.in_channels} channels, but what comes "
                    f"before it gives {channels}."
                )
            channels = block.out_channels


def _check_out_features(wanted: list[str], offered: list[str]) -> None:
    if not wanted:
        raise ValueError(f"out_features is empty; this ResNet offers {offered}.")
    for name in wanted:
        if name not in offered:
            close = difflib.get_close_matches(str(name), offered, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"out_features names {name!r}, but this ResNet offers {offered}.{hint}"
            )


class ResNet(PixelProperties, resnet.ResNet):
    """A stem and its stages, as a backbone: (B, C, H, W) -> {name: (B, C_i, H_i, W_i)}.

    Published weights with the stride in the 3x3 convolutions are by torchvision and timm, those
    with it in the 1x1 by MSRA (detectron2's ``MSRA/R-50.pkl``), who had BGR images and put the
    standard deviation into the first convolution: ``pixel_mean`` and its siblings say which.

    Args:
        stem: module with ``out_channels`` and ``stride``, e.g. ``BasicStem``.
        stages: up to four lists of blocks, as :meth:`make_default_stages` or :func:`make_stage`
            give them; they become ``res2``, ``res3``, ...
        num_classes: if given, a linear classifier named ``linear`` follows the last stage.
        out_features: any of ``stem``, ``res2`` ... ``res5``, ``linear``; by default the last one.
        freeze_at: see :meth:`freeze`.
        grad_checkpointing: in training, keep the inputs of blocks alone for the backward pass and
            compute the rest again; gradients and running statistics are the same.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
        *,
        grad_checkpointing: bool = False,
    ) -> None:
        if not 1 <= len(stages) <= len(_STAGE_NAMES):
            raise ValueError(f"A ResNet has one to four stages, not {len(stages)}.")
        available = ["stem", *_STAGE_NAMES[: len(stages)]]
        offered = available + ["linear"] * (num_classes is not None)
        wanted = [offered[-1]] if out_features is None else list(out_features)
        _check_out_features(wanted, offered)
        classifies = "linear" in wanted
        kept = len(stages) if classifies else max(available.index(name) for name in wanted)
        _check_chain(stem, stages[:kept])
        # Asked for its last part alone, the base class builds what is needed and no more.
        super().__init__(
            stem, stages, num_classes if classifies else None, [available[kept]], freeze_at
        )
        self.num_classes = num_classes
        self.grad_checkpointing = grad_checkpointing
        self.stage_names = _STAGE_NAMES[:kept]
        self._pixels = _expected_pixels(stages).for_channels(stem.in_channels)
        self._out_features = wanted
        if num_classes is not None and classifies:
            self._out_feature_channels["linear"] = num_classes
            self._out_feature_strides["linear"] = None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by name, in the order in which the network computes them.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        if x.dim() != 4:
            raise ValueError(f"ResNet takes images of shape (B, C, H, W), not {tuple(x.shape)}.")
        outputs = {}
        for name in ("stem", *self.stage_names):
            part = getattr(self, name)
            if self.grad_checkpointing and self.training and name != "stem":
                x = run_checkpointed(part, x)
            else:
                x = part(x)
            if name in self._out_features:
                outputs[name] = x
        if "linear" in self._out_features:
            outputs["linear"] = self.linear(x.mean(dim=(2, 3)))
        return outputs

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Freeze the first ``freeze_at`` parts: 0 none, 1 the stem, 2 also res2, ... 5 also res5.

        A frozen part has no trainable parameter and its batch norms are frozen too, which
        ``.train()`` does not undo.
        """
        if not 0 <= freeze_at <= 5:
            raise ValueError(
                f"freeze_at counts the stem and four stages (0 to 5), not {freeze_at}."
            )
        super().freeze(freeze_at)
        return self

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """The four stages of ResNet-18, 34, 50, 101 or 152 as the paper has them.

        Args:
            depth: number of weighted layers.
            block_class: by default ``BasicBlock`` below depth 50, else
                ``BottleneckBlock``.
            kwargs: passed to every block; not widths and strides, which the depth decides.
        """
        blocks_per_stage = _blocks_per_stage(depth)
        if block_class is None:
            block_class = BasicBlock if depth < 50 else BottleneckBlock
        if issubclass(block_class, BasicBlock):
            kwargs.pop("stride_in_1x1", None)  # a question only for blocks with 1x1 convolutions
        widths = (64, 128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
        in_channels = 64
        stages = []
        for index, (num_blocks, width) in enumerate(zip(blocks_per_stage, widths, strict=True)):
            if issubclass(block_class, BottleneckBlock):
                kwargs["bottleneck_channels"] = width // 4
            first_stride = 1 if index == 0 else 2
            stages.append(
                ResNet.make_stage(
                    block_class,
                    num_blocks,
                    in_channels=in_channels,
                    out_channels=width,
                    stride_per_block=[first_stride] + [1] * (num_blocks - 1),
                    **kwargs,
                )
            )
            in_channels = width
        return stages


def _expected_pixels(stages: Sequence[Sequence[CNNBlockBase]]) -> PixelStatistics:
    blocks = [block for stage in stages for block in stage if isinstance(block, BottleneckBlock)]
    stride_in_1x1 = any(block.conv1.stride != (1, 1) for block in blocks)
    return CAFFE_BGR if stride_in_1x1 else IMAGENET_RGB


def _check_stage_options(depth: int, **options: Any) -> None:
    """Refuse what :func:`make_stage` cannot build; ResNet-18 and 34 only come as they are."""
    if len(options["deform_on_per_stage"]) != 4:
        raise ValueError(
            "deform_on_per_stage needs one switch for each of the four stages, "
            f"not {options['deform_on_per_stage']}."
        )
    if options["res5_dilation"] not in (1, 2):
        raise ValueError(f"res5_dilation is 1 or 2 (DC5), not {options['res5_dilation']}.")
    if options["res5_first_dilation"] not in (None, 1, 2):
        raise ValueError(f"res5_first_dilation is 1 or 2, not {options['res5_first_dilation']}.")
    if depth >= 50:
        return
    allowed = {
        "out_channels": 64,
        "res5_dilation": 1,
        "res5_first_dilation": None,
        "num_groups": 1,
        "deform_on_per_stage": [False] * 4,
    }
    for name, value in allowed.items():
        if options[name] != value:
            raise ValueError(
                f"ResNet-{depth} is made of basic blocks, so {name} must be {value}, "
                f"not {options[name]}."
            )


def make_stage(
    depth: int = 50,
    norm: Norm = "FrozenBN",
    num_groups: int = 1,
    width_per_group: int = 64,
    in_channels: int = 64,
    out_channels: int = 256,
    stride_in_1x1: bool = False,
    res5_dilation: int = 1,
    deform_on_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
    res5_first_dilation: int | None = None,
) -> list[list[CNNBlockBase]]:
    """The four stages of a ResNet with the options of detectron2's builder.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: as in ``BasicStem``.
        num_groups, width_per_group: of the 3x3 convolutions in res2 (ResNeXt 32x4d: 32, 4; wide:
            1, 128); later stages double the width.
        in_channels: width of the stem.
        out_channels: width of res2: 256, and 64 for depth 18 and 34.
        stride_in_1x1: see ``BottleneckBlock``.
        res5_dilation: 1, or 2 for the "DC5" variant, whose res5 keeps the resolution of res4.
        deform_on_per_stage: four switches, res2 to res5, for :class:`DeformBottleneckBlock`.
        deform_modulated, deform_num_groups: of the deformable stages.
        res5_first_dilation: dilation of the first block of res5; by default ``res5_dilation``, as
            in detectron2. Weights of torchvision, timm and the original DETR DC5 models were
            trained with 1 (only the following blocks dilated) and need it said.

    Raises:
        ValueError: for a depth that does not exist or options that the depth does not allow.
    """
    blocks_per_stage = _blocks_per_stage(depth)
    deform = list(deform_on_per_stage)
    _check_stage_options(
        depth,
        out_channels=out_channels,
        res5_dilation=res5_dilation,
        res5_first_dilation=res5_first_dilation,
        num_groups=num_groups,
        deform_on_per_stage=deform,
    )
    stages = []
    for index, num_blocks in enumerate(blocks_per_stage):
        dilation = res5_dilation if index == 3 else 1
        keeps_size = index == 0 or dilation == 2
        options: dict[str, Any] = {
            "norm": norm,
            "stride_per_block": [1 if keeps_size else 2] + [1] * (num_blocks - 1),
        }
        block_class: type[CNNBlockBase] = BasicBlock
        if depth >= 50:
            block_class = BottleneckBlock
            first = res5_first_dilation if index == 3 else None
            options["dilation_per_block"] = [first or dilation] + [dilation] * (num_blocks - 1)
            options["bottleneck_channels"] = num_groups * width_per_group * 2**index
            options["stride_in_1x1"] = stride_in_1x1
            options["num_groups"] = num_groups
        if deform[index]:
            block_class = DeformBottleneckBlock
            options["deform_modulated"] = deform_modulated
            options["deform_num_groups"] = deform_num_groups
        stage = ResNet.make_stage(
            block_class, num_blocks, in_channels=in_channels, out_channels=out_channels, **options
        )
        stages.append(stage)
        in_channels, out_channels = out_channels, 2 * out_channels
    return stages
