"""ResNet (arXiv:1512.03385) and its relatives, with detectron2's parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from detectron2._left_out import explain_missing as _explain_missing
from detectron2.layers import (
    CNNBlockBase,
    Conv2d,
    DeformConv,
    ModulatedDeformConv,
    ShapeSpec,
    get_norm,
    weight_init,
)
from detectron2.layers.blocks import Norm
from detectron2.modeling.backbone.backbone import Backbone
from torch import Tensor, nn

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "make_stage",
]

ResNetBlockBase = CNNBlockBase

_BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _conv(
    in_channels: int, out_channels: int, size: int, norm: Norm, stride: int = 1, **kwargs: Any
) -> Conv2d:
    """A convolution without bias and with a norm, padded to keep the size at stride 1."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=size,
        stride=stride,
        padding=size // 2 * kwargs.get("dilation", 1),
        bias=False,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )
    weight_init.c2_msra_fill(conv)
    return conv


class BasicStem(CNNBlockBase):
    """7x7 convolution and max pooling: (B, C_in, H, W) -> (B, C_out, H/4, W/4)."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H/4, W/4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class _ResidualBlock(CNNBlockBase):
    """Adds what ``residual`` computes to the input, projected where its shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = (
            _conv(in_channels, out_channels, 1, norm, stride=stride)
            if in_channels != out_channels
            else None
        )

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H/stride, W/stride)."""
        residual = self.residual(x)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(residual + shortcut)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions, as in ResNet-18 and 34."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN"
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu_(self.conv1(x)))


class BottleneckBlock(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolution, as in ResNet-50, 101, 152 and ResNeXt.

    Args:
        bottleneck_channels: width of the 3x3 convolution.
        num_groups: its groups.
        stride_in_1x1: whether the first 1x1 convolution has the stride, as in the original
            and its MSRA weights, or the 3x3 one, as in torchvision's.
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
        super().__init__(in_channels, out_channels, stride, norm)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=stride_3x3,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))


class DeformBottleneckBlock(_ResidualBlock):
    """``BottleneckBlock`` whose 3x3 convolution is deformable (arXiv:1703.06211).

    Args:
        deform_modulated: also weigh the samples (DCNv2, arXiv:1811.11168).
        deform_num_groups: groups of channels with offsets of their own.
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
        super().__init__(in_channels, out_channels, stride, norm)
        self.deform_modulated = deform_modulated
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        place: dict[str, Any] = {"stride": stride_3x3, "padding": dilation, "dilation": dilation}
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        # Per sample of the 3x3 kernel an offset (y, x), and if modulated a weight.
        numbers = (27 if deform_modulated else 18) * deform_num_groups
        self.conv2_offset = Conv2d(bottleneck_channels, numbers, kernel_size=3, **place)
        self.conv2 = (ModulatedDeformConv if deform_modulated else DeformConv)(
            bottleneck_channels,
            bottleneck_channels,
            kernel_size=3,
            bias=False,
            groups=num_groups,
            deformable_groups=deform_num_groups,
            norm=get_norm(norm, bottleneck_channels),
            **place,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)
        weight_init.c2_msra_fill(self.conv2)
        for parameter in self.conv2_offset.parameters():
            nn.init.zeros_(parameter)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu_(self.conv1(x))
        offset = self.conv2_offset(x)
        if self.deform_modulated:
            first, second, mask = offset.chunk(3, dim=1)
            x = self.conv2(x, torch.cat((first, second), dim=1), mask.sigmoid())
        else:
            x = self.conv2(x, offset)
        return self.conv3(F.relu_(x))


class ResNet(Backbone):
    """A stem and the stages ``res2``, ``res3``, ...

    Stages after the last one asked for are not kept.

    Args:
        stem: the first block.
        stages: lists of blocks, as ``make_stage`` returns them.
        num_classes: if given, ``linear`` classifies the image.
        out_features: of ``stem``, ``res2`` to ``res5`` and ``linear``; default: the last.
        freeze_at: see ``freeze``.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        names = [f"res{i + 2}" for i in range(len(stages))]
        if out_features is not None and "linear" not in out_features:
            wanted = [i for i, name in enumerate(names) if name in out_features]
            names = names[: max(wanted, default=-1) + 1]
        stride, channels = stem.stride, stem.out_channels
        self._out_feature_strides = {"stem": stride}
        self._out_feature_channels = {"stem": channels}
        self.stages: list[nn.Sequential] = []
        for name, blocks in zip(names, stages, strict=False):
            stage = nn.Sequential(*blocks)
            self.add_module(name, stage)
            self.stages.append(stage)
            for block in blocks:
                stride *= block.stride
            channels = blocks[-1].out_channels
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = channels
        self.stage_names = tuple(names)
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)
        self._out_features = self._checked(out_features)
        self.freeze(freeze_at)

    def _checked(self, out_features: Sequence[str] | None) -> list[str]:
        known = ["stem", *self.stage_names, *(["linear"] if self.num_classes is not None else [])]
        features = [known[-1]] if out_features is None else list(out_features)
        unknown = [name for name in features if name not in known]
        if unknown or not features:
            raise AssertionError(
                f"out_features are some of {', '.join(known)}, not {', '.join(unknown) or 'none'}."
            )
        return features

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, C, H, W) -> the features asked for, by name."""
        if x.dim() != 4:
            raise AssertionError(f"ResNet takes images (B, C, H, W), not {tuple(x.shape)}.")
        outputs = {"stem": self.stem(x)}
        x = outputs["stem"]
        for name in self.stage_names:
            x = outputs[name] = self.get_submodule(name)(x)
        if self.num_classes is not None:
            outputs["linear"] = self.linear(self.avgpool(x).flatten(1))
        return {name: value for name, value in outputs.items() if name in self._out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels.get(name, self.num_classes),
                stride=self._out_feature_strides.get(name),
            )
            for name in self._out_features
        }

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Freeze the first parts and their norms: 1 the stem, 2 also res2, ... 5 everything."""
        if freeze_at >= 1:
            self.stem.freeze()
        for stage in self.stages[: max(freeze_at - 1, 0)]:
            for block in cast("list[CNNBlockBase]", stage):
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
        """The blocks of one stage.

        Args:
            block_class: their class.
            num_blocks: how many.
            in_channels: of the first block; the others have ``out_channels``.
            out_channels: of all blocks.
            kwargs: arguments of the class. Those that end in ``_per_block`` are lists with one
                value per block, as ``stride_per_block=[2, 1, 1]``.
        """
        per_block = {
            k.removesuffix("_per_block"): v for k, v in kwargs.items() if "_per_block" in k
        }
        common = {k: v for k, v in kwargs.items() if "_per_block" not in k}
        for name, values in per_block.items():
            if len(values) != num_blocks or name in common:
                raise AssertionError(
                    f"{name}_per_block needs {num_blocks} values, and no {name} beside it."
                )
        channels = [in_channels] + [out_channels] * (num_blocks - 1)
        return [
            block_class(
                in_channels=channels[i],
                out_channels=out_channels,
                **common,
                **{name: values[i] for name, values in per_block.items()},
            )
            for i in range(num_blocks)
        ]

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """The four stages of ResNet-18, 34, 50, 101 or 152.

        Args:
            depth: which one.
            block_class: default: ``BasicBlock`` up to depth 34, then ``BottleneckBlock``.
            kwargs: arguments of the class. Basic blocks have no 1x1 convolution and ignore
                ``stride_in_1x1``.
        """
        if depth not in _BLOCKS_PER_STAGE:
            raise ValueError(f"There is no ResNet-{depth}; depths are {list(_BLOCKS_PER_STAGE)}.")
        basic = depth < 50
        if block_class is None:
            block_class = BasicBlock if basic else BottleneckBlock
        if basic:
            kwargs.pop("stride_in_1x1", None)
        widths = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
        stages = []
        for index, (count, width) in enumerate(zip(_BLOCKS_PER_STAGE[depth], widths, strict=True)):
            bottleneck = {} if basic else {"bottleneck_channels": width // 4}
            stages.append(
                ResNet.make_stage(
                    block_class,
                    count,
                    stride_per_block=[1 if index == 0 else 2] + [1] * (count - 1),
                    in_channels=64 if index == 0 else widths[index - 1],
                    out_channels=width,
                    **bottleneck,
                    **kwargs,
                )
            )
        return stages


def make_stage(*args: Any, **kwargs: Any) -> list[CNNBlockBase]:
    """``ResNet.make_stage``, under the name that older configs import."""
    return ResNet.make_stage(*args, **kwargs)


__getattr__ = _explain_missing(__name__)
