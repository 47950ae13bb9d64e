"""The losses as modules: what a config chooses once, apart from what is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex.layers.box_ops import EPS
from detrex.modeling.losses.functional import (
    cross_entropy,
    dice_loss,
    giou_loss,
    l1_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
)


class _Loss(nn.Module):
    """A loss function with its options, times ``loss_weight``."""

    def __init__(
        self, function: Callable[..., Tensor], reduction: str, loss_weight: float, **options: Any
    ) -> None:
        super().__init__()
        self.function = function
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.options = options

    def forward(
        self,
        preds: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Tensor:
        """Shapes are those of the function of the same name; see its module for the rest."""
        loss = self.function(
            preds,
            targets,
            weight=weight,
            reduction=self.reduction,
            avg_factor=avg_factor,
            **self.options,
        )
        return self.loss_weight * loss

    def extra_repr(self) -> str:
        options = {"reduction": self.reduction, "loss_weight": self.loss_weight, **self.options}
        return ", ".join(f"{name}={value}" for name, value in options.items())


class FocalLoss(_Loss):
    """:func:`.sigmoid_focal_loss`; ``activated`` says that predictions are probabilities."""

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        options = {"alpha": alpha, "gamma": gamma, "activated": activated}
        super().__init__(sigmoid_focal_loss, reduction, loss_weight, **options)


class CrossEntropyLoss(_Loss):
    """:func:`.cross_entropy`; ``class_weight`` has one number per class.

    Targets of ``ignore_index`` cost nothing, and with ``avg_non_ignore`` don't count in the mean.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        class_weight: Sequence[float] | Tensor | None = None,
        ignore_index: int = -100,
        avg_non_ignore: bool = False,
    ) -> None:
        options = {"ignore_index": ignore_index, "avg_non_ignore": avg_non_ignore}
        super().__init__(cross_entropy, reduction, loss_weight, **options)
        if class_weight is not None:
            class_weight = torch.as_tensor(class_weight, dtype=torch.float32)
        self.register_buffer("class_weight", class_weight, persistent=False)

    def forward(
        self,
        preds: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Tensor:
        """``(N, K)`` logits and ``(N,)`` class numbers."""
        class_weight = None if self.class_weight is None else self.class_weight.to(preds)
        return self.loss_weight * cross_entropy(
            preds, targets, weight, class_weight, self.reduction, avg_factor, **self.options
        )


class GIoULoss(_Loss):
    """:func:`.giou_loss`, on xyxy boxes."""

    def __init__(self, eps: float = EPS, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__(giou_loss, reduction, loss_weight, eps=eps)


class L1Loss(_Loss):
    """:func:`.l1_loss`."""

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__(l1_loss, reduction, loss_weight)


class SmoothL1Loss(_Loss):
    """:func:`.smooth_l1_loss`; differences below ``beta`` count quadratically."""

    def __init__(
        self, beta: float = 1.0, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(smooth_l1_loss, reduction, loss_weight, beta=beta)


class DiceLoss(_Loss):
    """:func:`.dice_loss`; without ``use_sigmoid`` predictions are probabilities."""

    def __init__(
        self,
        use_sigmoid: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__(dice_loss, reduction, loss_weight, use_sigmoid=use_sigmoid, eps=eps)
