"""Normalization layers and the names that configs use for them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "CycleBatchNormList",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "NaiveSyncBatchNorm",
    "get_norm",
]


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm2d whose statistics and affine transform are fixed.

    ``weight``, ``bias``, ``running_mean`` and ``running_var`` (each (C,)) are buffers, so
    neither training nor an optimizer touches them. A new instance is the identity. State
    dicts of BatchNorm2d load; their ``num_batches_tracked`` is not needed.

    Args:
        num_features: C.
        eps: added to the variance.
        device: as of other torch modules.
        dtype: as of other torch modules.
    """

    _version = 3

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        ones = torch.ones(num_features, device=device, dtype=dtype)
        self.register_buffer("weight", ones)
        self.register_buffer("bias", torch.zeros_like(ones))
        self.register_buffer("running_mean", torch.zeros_like(ones))
        self.register_buffer("running_var", ones - eps)
        # BatchNorm has it; None keeps it out of the state dict.
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B, C, H, W), keeping its dtype."""
        if x.requires_grad:
            # With a gradient on the way, F.batch_norm would also compute those of the
            # weight and keep x in memory; a scale and a shift do not.
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            bias = self.bias - self.running_mean * scale
            return x * scale.to(x.dtype)[:, None, None] + bias.to(x.dtype)[:, None, None]
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, eps=self.eps
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # Files with a frozen transform folded into weight and bias have no statistics.
        if (local_metadata.get("version") or 1) < 2:
            for name, buffer in (("running_mean", 0.0), ("running_var", 1.0 - self.eps)):
                if prefix + name not in state_dict:
                    state_dict[prefix + name] = torch.full_like(getattr(self, name), buffer)
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace each BatchNorm2d and SyncBatchNorm in ``module`` by a frozen equal of it.

        A subclass that does more than normalizing, such as timm's BatchNormAct2d, becomes
        a ``FrozenBatchNormAct2d`` that goes on with the rest of the original's forward
        (``drop`` and ``act``); parameter names stay the same in all cases.

        Returns:
            The module itself, changed in place, or its replacement if it is a BatchNorm.

        Raises:
            TypeError: a subclass overrides forward in a way that cannot be kept.
        """
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            return _frozen_equal(module)
        for name, child in module.named_children():
            replacement = cls.convert_frozen_batchnorm(child)
            if replacement is not child:
                setattr(module, name, replacement)
        return module

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """Replace each FrozenBatchNorm2d in ``module`` by a trainable BatchNorm2d equal to it."""
        if isinstance(module, FrozenBatchNorm2d):
            return _trainable_equal(module)
        for name, child in module.named_children():
            replacement = cls.convert_frozenbatchnorm2d_to_batchnorm2d(child)
            if replacement is not child:
                setattr(module, name, replacement)
        return module


class NaiveSyncBatchNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm under detectron2's name, on CPUs too; on one process it is BatchNorm2d.

    ``stats_mode="N"`` asked for weighting each process by its batch size, which this always does.
    """

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        if stats_mode not in ("", "N"):
            raise ValueError(f"stats_mode is '' or 'N', not {stats_mode!r}.")
        super().__init__(*args, **kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize input (B, C, H, W)."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.training and (not distributed or torch.distributed.get_world_size() == 1):
            return nn.BatchNorm2d.forward(self, input)
        if self.training and input.device.type == "cpu":
            return self._normalize_by_sums(input)
        return super().forward(input)

    def _normalize_by_sums(self, input: Tensor) -> Tensor:
        """Normalize by sums over all processes; torch's own kernels are for GPUs only."""
        # In float32 the difference of squares below loses all digits where the mean is large.
        x, channels = input.double(), self.num_features
        count = x.new_tensor([x.numel() / channels])
        sums = torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count])
        sums = _SumOverProcesses.apply(sums)
        total = sums[-1].detach()
        mean = sums[:channels] / total
        variance = sums[channels:-1] / total - mean.square()
        self._update_statistics(mean.detach(), (variance * total / (total - 1)).detach())
        x = (x - mean[:, None, None]) * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            x = x * self.weight[:, None, None] + self.bias[:, None, None]
        return x.to(input.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        batches = self.num_batches_tracked
        if self.running_mean is None or self.running_var is None or batches is None:
            return
        batches += 1
        share = 1 / float(batches) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


class _SumOverProcesses(torch.autograd.Function):
    """all_reduce with a gradient, which is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumOverProcesses.forward(ctx, grad)


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """FrozenBatchNorm2d followed by what a combined norm-and-activation layer does after it."""

    def __init__(self, num_features: int, eps: float, drop: nn.Module, act: nn.Module) -> None:
        super().__init__(num_features, eps)
        self.drop = drop
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B, C, H, W), then apply ``drop`` and ``act``."""
        return self.act(self.drop(super().forward(x)))


def _frozen_equal(bn: nn.BatchNorm2d | nn.SyncBatchNorm) -> FrozenBatchNorm2d:
    act, drop = getattr(bn, "act", None), getattr(bn, "drop", None)
    if bn.running_mean is None or bn.running_var is None:
        raise TypeError(
            f"{type(bn).__name__} without running statistics cannot be frozen; create it with "
            "track_running_stats=True."
        )
    frozen: FrozenBatchNorm2d
    if isinstance(act, nn.Module):
        drop = drop if isinstance(drop, nn.Module) else nn.Identity()
        frozen = FrozenBatchNormAct2d(bn.num_features, bn.eps, drop, act)
    elif type(bn).forward in _PLAIN_FORWARDS:
        frozen = FrozenBatchNorm2d(bn.num_features, bn.eps)
    else:
        raise TypeError(
            f"{type(bn).__module__}.{type(bn).__qualname__} is a BatchNorm with a forward of its "
            "own, which freezing would lose; freeze it by hand."
        )
    frozen.to(device=bn.running_mean.device, dtype=bn.running_mean.dtype)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(bn, name)
            if value is not None:
                getattr(frozen, name).copy_(value)
    return frozen.train(bn.training)


_PLAIN_FORWARDS = (
    nn.BatchNorm2d.forward,
    nn.SyncBatchNorm.forward,
    NaiveSyncBatchNorm.forward,
)


def _trainable_equal(frozen: FrozenBatchNorm2d) -> nn.Module:
    bn = nn.BatchNorm2d(frozen.num_features, frozen.eps)
    bn.to(device=frozen.weight.device, dtype=frozen.weight.dtype)
    bn.load_state_dict(
        {name: getattr(frozen, name) for name in ("weight", "bias", "running_mean", "running_var")},
        strict=False,
    )
    bn.train(frozen.training)
    if isinstance(frozen, FrozenBatchNormAct2d):
        return nn.Sequential(bn, frozen.drop, frozen.act)
    return bn


class LayerNorm(nn.Module):
    """LayerNorm over the channels of channels-first maps.

    Args:
        normalized_shape: C.
        eps: added to the variance.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B, C, H, W) over C at each position."""
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) * (variance + self.eps).rsqrt()
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class CycleBatchNormList(nn.ModuleList):
    """BatchNorms that take turns, one per call, and share one affine transform.

    Args:
        length: number of norms, for example of feature levels.
        bn_class: their class.
        kwargs: arguments of the class; ``num_features`` is needed.
    """

    def __init__(self, length: int, bn_class: Any = nn.BatchNorm2d, **kwargs: Any) -> None:
        self._affine = kwargs.pop("affine", True)
        super().__init__([bn_class(**kwargs, affine=False) for _ in range(length)])
        if self._affine:
            channels = kwargs["num_features"]
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        self._turn = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B, C, H, W) with the norm whose turn it is."""
        x = self[self._turn](x)
        self._turn = (self._turn + 1) % len(self)
        if not self._affine:
            return x
        return x * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"affine={self._affine}"


def _group_norm_32(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": NaiveSyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": _group_norm_32,
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "LN": LayerNorm,
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """The normalization layer that a config asks for.

    Args:
        norm: one of BN, SyncBN, FrozenBN, GN (32 groups), LN, nnSyncBN, naiveSyncBN,
            naiveSyncBN_N; or a callable that takes the number of channels; None or "" for none.
        out_channels: number of channels.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise KeyError(f"There is no norm named {norm!r}; there are {', '.join(_NORMS)}.")
        norm = _NORMS[norm]
    return norm(out_channels)
