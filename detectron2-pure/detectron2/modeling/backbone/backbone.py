"""What every backbone offers."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

from detectron2.layers.shape_spec import ShapeSpec
from torch import Tensor, nn

__all__ = ["Backbone"]


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network from images (B, C, H, W) to a dictionary of feature maps.

    Subclasses usually set ``_out_features`` (names), ``_out_feature_channels`` and
    ``_out_feature_strides`` (by name), from which ``output_shape`` answers.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by name."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input have to be divisible by this; 0: no requirement."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Wishes for ``ImageList.from_tensors``: ``size_divisibility``, ``square_size``."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
