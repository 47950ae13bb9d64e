"""Transforms by the names of the public detrex."""

from detrex.data.transforms.color_augmentation import ColorAugSSDTransform

__all__ = ["ColorAugSSDTransform"]
