"""Arguments of backbones on their way from a LazyConfig to a network that knows nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from detrex.modeling.backbone.frozen_norm import is_frozen_norm


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` with omegaconf's lists and dictionaries as Python's own."""
    return {
        name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for name, value in arguments.items()
    }


def norm_arguments(
    arguments: Mapping[str, Any], norm_layer: Any, freeze_norm: bool
) -> tuple[dict[str, Any], bool]:
    """Arguments of a network with its ``norm_layer``, and whether its norms are to be frozen.

    A frozen norm is none of the network's own: its batch norms are built as usual and then frozen.
    """
    plain = plain_arguments(arguments)
    if is_frozen_norm(norm_layer):
        return plain, True
    if norm_layer is not None:
        plain["norm_layer"] = norm_layer
    return plain, freeze_norm


def check_images(x: Tensor) -> None:
    """Require a batch of images.

    Raises:
        ValueError: ``x`` is not of shape (B, C, H, W).
    """
    if x.dim() != 4:
        raise ValueError(f"A backbone takes images (B, C, H, W), not {tuple(x.shape)}.")


def check_freeze_at(freeze_at: int) -> None:
    """Require a count of frozen parts.

    Raises:
        ValueError: it is negative.
    """
    if freeze_at < 0:
        raise ValueError(f"freeze_at is 0 or more, not {freeze_at}.")


def as_channels_first(x: Tensor, channels_last: bool) -> Tensor:
    """A map (B, C, H, W), contiguous, from one that may have its channels last."""
    return (x.permute(0, 3, 1, 2) if channels_last else x).contiguous()
