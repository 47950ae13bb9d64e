"""ResNet with detectron2's parameter names (He et al., "Deep Residual Learning", arXiv:1512.03385).

Shape letters: B batch, C channels, H height, W width; G deformable groups.

A network is a stem and up to four stages, ``res2`` to ``res5``; each stage is a sequence of blocks
and opens with the block that changes stride and width. Stages behind the last requested feature
are not kept, so that every parameter of a backbone takes part in its outputs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
import torchvision
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from fvcore.nn import weight_init
from torch import Tensor, nn

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


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: Norm,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Conv2d:
    """A bias-free convolution that keeps the size (up to its stride), with its norm inside."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    weight_init.c2_msra_fill(conv)
    return conv


def _projection(in_channels: int, out_channels: int, stride: int, norm: Norm) -> Conv2d | None:
    """The 1x1 convolution of a shortcut, or None where the identity fits."""
    if in_channels == out_channels:
        return None
    return _conv(in_channels, out_channels, 1, norm, stride=stride)


class BasicStem(CNNBlockBase):
    """7x7 convolution, ReLU and 3x3 max-pooling: (B, in_channels, H, W) -> (B, C, H/4, W/4).

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output.
        norm: a name or a callable that ``detectron2.layers.get_norm`` takes.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.conv1(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class BasicBlock(CNNBlockBase):
    """The block of ResNet-18 and 34: two 3x3 convolutions beside a shortcut.

    Args:
        in_channels, out_channels: widths; a projection is built where they differ.
        stride: of the first convolution and of the projection.
        norm: as in :class:`BasicStem`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN"
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = _projection(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu_(self.conv1(x)))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out + shortcut)


class BottleneckBlock(CNNBlockBase):
    """The block of ResNet-50 and deeper: 1x1, 3x3 and 1x1 convolutions beside a shortcut.

    Args:
        in_channels, out_channels: widths; a projection is built where they differ.
        bottleneck_channels: width of the 3x3 convolution.
        stride: of the block.
        num_groups: groups of the 3x3 convolution (ResNeXt: 32).
        norm: as in :class:`BasicStem`.
        stride_in_1x1: where the stride sits: in the first 1x1 (weights by MSRA) or in the 3x3
            (weights by torchvision and timm).
        dilation: of the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _projection(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = self._spatial_conv(
            bottleneck_channels, norm, stride=stride_3x3, dilation=dilation, groups=num_groups
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def _spatial_conv(self, channels: int, norm: Norm, **geometry: int) -> nn.Module:
        return _conv(channels, channels, 3, norm, **geometry)

    def _mix_space(self, x: Tensor) -> Tensor:
        return self.conv2(x)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self._mix_space(out))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(out) + shortcut)


class _DeformConv(torchvision.ops.DeformConv2d):
    """A deformable convolution with its norm inside: keys ``weight`` and ``norm.*``."""

    def __init__(self, channels: int, norm: Norm, *, stride: int, dilation: int, groups: int):
        super().__init__(
            channels,
            channels,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.norm = get_norm(norm, channels)
        weight_init.c2_msra_fill(self)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        x = super().forward(x, offset, mask)
        return x if self.norm is None else self.norm(x)


class DeformBottleneckBlock(BottleneckBlock):
    """A bottleneck whose 3x3 convolution is deformable (arXiv:1703.06211, arXiv:1811.11168).

    Offsets start at zero, where the unmodulated block equals :class:`BottleneckBlock`.

    Args:
        deform_modulated: also predict a weight in (0, 1) for each tap (version 2 of the paper).
        deform_num_groups: groups of channels with offsets of their own.
        others: as in :class:`BottleneckBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
        )
        self.deform_modulated = deform_modulated
        values_per_tap = 3 if deform_modulated else 2
        self.conv2_offset = Conv2d(
            bottleneck_channels,
            values_per_tap * 9 * deform_num_groups,
            kernel_size=3,
            stride=1 if stride_in_1x1 else stride,
            padding=dilation,
            dilation=dilation,
        )
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)

    def _spatial_conv(self, channels: int, norm: Norm, **geometry: int) -> nn.Module:
        return _DeformConv(channels, norm, **geometry)

    def _mix_space(self, x: Tensor) -> Tensor:
        offset = self.conv2_offset(x)  # B, 18G or 27G, H, W: two coordinates per tap first
        if not self.deform_modulated:
            return self.conv2(x, offset)
        taps = offset.shape[1] // 3
        offset, weight = offset.split((2 * taps, taps), dim=1)
        return self.conv2(x, offset, weight.sigmoid())


class ResNet(Backbone):
    """A stem and its stages, as a backbone: (B, C, H, W) -> {name: (B, C_i, H_i, W_i)}.

    Args:
        stem: module with ``out_channels`` and ``stride``, e.g. :class:`BasicStem`.
        stages: up to four lists of blocks, as :meth:`make_default_stages` or :func:`make_stage`
            give them; they become ``res2``, ``res3``, ...
        num_classes: if given, a linear classifier named ``linear`` follows the last stage.
        out_features: any of ``stem``, ``res2`` ... ``res5``, ``linear``; by default the last one.
        freeze_at: see :meth:`freeze`.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= len(stages) <= len(_STAGE_NAMES):
            raise ValueError(f"A ResNet has one to four stages, not {len(stages)}.")
        names = _STAGE_NAMES[: len(stages)]
        last = names[-1] if num_classes is None else "linear"
        self._out_features = [last] if out_features is None else list(out_features)
        self._check_out_features(["stem", *names] + ["linear"] * (num_classes is not None))

        self.num_classes = num_classes
        self.stem = stem
        self.stage_names = names[: self._depth_needed(names)]
        channels, stride = stem.out_channels, stem.stride
        self._out_feature_channels = {"stem": channels}
        self._out_feature_strides = {"stem": stride}
        for name, blocks in zip(self.stage_names, stages, strict=False):
            self._check_chain(name, blocks, channels)
            self.add_module(name, nn.Sequential(*blocks))
            channels = blocks[-1].out_channels
            for block in blocks:
                stride *= block.stride
            self._out_feature_channels[name] = channels
            self._out_feature_strides[name] = stride
        if "linear" in self._out_features:
            self._add_classifier(channels)
        self.freeze(freeze_at)

    def _check_out_features(self, available: list[str]) -> None:
        if not self._out_features:
            raise ValueError(f"out_features is empty; this ResNet offers {available}.")
        for name in self._out_features:
            if name not in available:
                close = difflib.get_close_matches(str(name), available, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(
                    f"out_features names {name!r}, but this ResNet offers {available}.{hint}"
                )

    def _depth_needed(self, names: Sequence[str]) -> int:
        if "linear" in self._out_features:
            return len(names)
        return max((names.index(n) + 1 for n in self._out_features if n in names), default=0)

    @staticmethod
    def _check_chain(name: str, blocks: Sequence[nn.Module], channels: int) -> None:
        if not blocks:
            raise ValueError(f"Stage {name} has no blocks.")
        for index, block in enumerate(blocks):
            if block.in_channels != channels:
                raise ValueError(
                    f"Block {name}.{index} takes {block.in_channels} channels, but what comes "
                    f"before it gives {channels}."
                )
            channels = block.out_channels

    def _add_classifier(self, channels: int) -> None:
        self.linear = nn.Linear(channels, self.num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by name, in the order in which the network computes them.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        if x.dim() != 4:
            raise ValueError(f"ResNet takes images of shape (B, C, H, W), not {tuple(x.shape)}.")
        outputs = {}
        for name in ("stem", *self.stage_names):
            x = getattr(self, name)(x)
            if name in self._out_features:
                outputs[name] = x
        if "linear" in self._out_features:
            outputs["linear"] = self.linear(x.mean(dim=(2, 3)))
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output, in the order of ``out_features``."""
        return {
            name: ShapeSpec(channels=self.num_classes)
            if name == "linear"
            else ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Freeze the first ``freeze_at`` parts: 0 none, 1 the stem, 2 also res2, ... 5 also res5.

        A frozen part has no trainable parameter and its batch norms become constant, which
        ``.train()`` does not undo.
        """
        if not 0 <= freeze_at <= 5:
            raise ValueError(
                f"freeze_at counts the stem and four stages (0 to 5), not {freeze_at}."
            )
        if freeze_at >= 1:
            self.stem.freeze()
        for name in self.stage_names[: max(freeze_at - 1, 0)]:
            for block in getattr(self, name):
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Blocks of one stage.

        Args:
            block_class: what to build.
            num_blocks: how many of them.
            in_channels: width that enters the first block.
            out_channels: width of every block's output.
            kwargs: passed to every block; one named ``x_per_block`` holds an ``x`` for each.
        """
        suffix = "_per_block"
        for name, values in kwargs.items():
            if name.endswith(suffix) and len(values) != num_blocks:
                raise ValueError(f"{name} has {len(values)} values for {num_blocks} blocks.")
        blocks = []
        for index in range(num_blocks):
            arguments = {
                name.removesuffix(suffix): value[index] if name.endswith(suffix) else value
                for name, value in kwargs.items()
            }
            blocks.append(block_class(in_channels, out_channels, **arguments))
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """The four stages of ResNet-18, 34, 50, 101 or 152 as the paper has them.

        Args:
            depth: number of weighted layers.
            block_class: by default :class:`BasicBlock` below depth 50, else
                :class:`BottleneckBlock`.
            kwargs: passed to every block; not widths and strides, which the depth decides.
        """
        blocks_per_stage = _blocks_per_stage(depth)
        if block_class is None:
            block_class = BasicBlock if depth < 50 else BottleneckBlock
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
        norm: as in :class:`BasicStem`.
        num_groups, width_per_group: of the 3x3 convolutions in res2 (ResNeXt 32x4d: 32, 4; wide:
            1, 128); later stages double the width.
        in_channels: width of the stem.
        out_channels: width of res2: 256, and 64 for depth 18 and 34.
        stride_in_1x1: see :class:`BottleneckBlock`.
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
