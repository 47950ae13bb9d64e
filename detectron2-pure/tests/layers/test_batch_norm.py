"""FrozenBatchNorm2d, its conversions, and norms by name."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.layers import (
    CycleBatchNormList,
    FrozenBatchNorm2d,
    LayerNorm,
    NaiveSyncBatchNorm,
    get_norm,
)
from torch import nn
from torch.testing import assert_close

REFERENCE = np.load(Path(__file__).parent / "data" / "frozen_bn.npz")
STATE = ("weight", "bias", "running_mean", "running_var")


def recipe_(module):
    """Fill a norm with the values that the reference was measured with."""
    for key, tensor in module.state_dict().items():
        z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(tensor.shape))
        positive = key in ("weight", "running_var")
        tensor.copy_(torch.from_numpy(1 + 0.1 * abs(z) if positive else 0.05 * z))
    return module


def random_norm(channels=5, kind=nn.BatchNorm2d, **kwargs):
    torch.manual_seed(0)
    norm = kind(channels, **kwargs)
    for name in STATE:
        getattr(norm, name).data.uniform_(0.5, 2)
    return norm.eval()


@pytest.mark.parametrize(("eps", "name"), [(1e-5, "detectron2"), (1e-3, "detectron2_eps1e_3")])
def test_agrees_with_the_reference(eps, name):
    norm = recipe_(FrozenBatchNorm2d(6, eps=eps))
    x = torch.from_numpy(REFERENCE["input"])
    expected = torch.from_numpy(REFERENCE[name])
    assert_close(norm(x.clone().requires_grad_()), expected, rtol=0, atol=1e-6)
    assert_close(norm(x), expected, rtol=0, atol=1e-6)
    assert sorted(norm.state_dict()) == REFERENCE["detectron2_keys"].tolist()


def test_gradient_agrees_with_the_reference():
    norm = recipe_(FrozenBatchNorm2d(6))
    x = torch.from_numpy(REFERENCE["input"]).requires_grad_()
    norm(x).backward(torch.from_numpy(REFERENCE["cotangent"]))
    assert_close(x.grad, torch.from_numpy(REFERENCE["detectron2_grad"]), rtol=0, atol=1e-6)


def test_new_one_is_the_identity_and_has_no_parameters():
    norm = FrozenBatchNorm2d(4)
    x = torch.randn(2, 4, 3, 3)
    assert_close(norm(x), x)
    assert list(norm.parameters()) == []
    assert norm.num_batches_tracked is None


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_keeps_its_dtype(requires_grad, dtype):
    norm = FrozenBatchNorm2d(4)
    x = torch.randn(1, 4, 2, 2, dtype=dtype, requires_grad=requires_grad)
    assert norm(x).dtype == dtype
    assert norm.weight.dtype == torch.float32


@pytest.mark.parametrize("requires_grad", [False, True])
def test_double_precision(requires_grad):
    norm = recipe_(FrozenBatchNorm2d(4)).double()
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=requires_grad)
    shape = (1, 4, 1, 1)
    mean, var, weight, bias = (
        getattr(norm, name).view(shape)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    assert_close(norm(x), (x - mean) / (var + 1e-5).sqrt() * weight + bias)


def test_loads_batch_norm_state():
    source = random_norm()
    frozen = FrozenBatchNorm2d(5)
    state = source.state_dict()
    assert "num_batches_tracked" in state
    result = frozen.load_state_dict(state)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert "num_batches_tracked" in state
    x = torch.randn(2, 5, 3, 3)
    assert_close(frozen(x), source(x))


def test_loads_folded_norms():
    # Caffe2's files hold weight and bias only.
    frozen = FrozenBatchNorm2d(2)
    frozen.running_mean.fill_(9)
    frozen.load_state_dict({"weight": torch.tensor([2.0, 3]), "bias": torch.tensor([1.0, 0])})
    x = torch.ones(1, 2, 1, 1)
    assert_close(frozen(x).flatten(), torch.tensor([3.0, 3.0]))


# Conversion -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm])
def test_convert(kind):
    inner = random_norm(kind=kind, eps=1e-3)
    model = nn.Sequential(nn.Conv2d(5, 5, 1), nn.Sequential(inner), nn.ReLU()).eval()
    keys = set(model.state_dict())
    x = torch.randn(2, 5, 3, 3)
    before = model(x)
    assert FrozenBatchNorm2d.convert_frozen_batchnorm(model) is model
    frozen = model[1][0]
    assert type(frozen) is FrozenBatchNorm2d
    assert frozen.eps == 1e-3
    assert_close(model(x), before)
    assert keys - set(model.state_dict()) == {"1.0.num_batches_tracked"}
    inner.weight.data.zero_()
    assert_close(model(x), before)


def test_convert_a_norm_itself():
    norm = random_norm()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    assert isinstance(frozen, FrozenBatchNorm2d)
    x = torch.randn(1, 5, 2, 2)
    assert_close(frozen(x), norm(x))
    assert FrozenBatchNorm2d.convert_frozen_batchnorm(frozen) is frozen


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: the activation is part of the norm."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def test_convert_keeps_the_activation():
    norm = random_norm(kind=NormAct)
    x = torch.randn(2, 5, 3, 3)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    assert isinstance(frozen, FrozenBatchNorm2d)
    assert_close(frozen(x), norm(x))
    assert (frozen(x) >= 0).all()
    assert set(frozen.state_dict()) == set(STATE)
    back = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(frozen).eval()
    assert_close(back(x), norm(x))


def test_convert_timm_network():
    timm = pytest.importorskip("timm")
    model = timm.create_model("efficientnet_lite0", num_classes=2).eval()
    x = torch.randn(1, 3, 32, 32)
    before = model(x)
    FrozenBatchNorm2d.convert_frozen_batchnorm(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_convert_refuses_what_it_would_break():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(TypeError, match=r"Doubled .* forward of its own"):
        FrozenBatchNorm2d.convert_frozen_batchnorm(nn.Sequential(Doubled(3)))
    with pytest.raises(TypeError, match="running statistics"):
        FrozenBatchNorm2d.convert_frozen_batchnorm(nn.BatchNorm2d(3, track_running_stats=False))


def test_convert_without_affine():
    norm = nn.BatchNorm2d(3, affine=False).eval()
    norm.running_mean.fill_(2)
    x = torch.randn(1, 3, 2, 2)
    assert_close(FrozenBatchNorm2d.convert_frozen_batchnorm(norm)(x), norm(x))


def test_convert_back():
    frozen = recipe_(FrozenBatchNorm2d(4))
    model = nn.Sequential(nn.Sequential(frozen)).eval()
    x = torch.randn(1, 4, 2, 2)
    before = model(x)
    FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(model)
    assert type(model[0][0]) is nn.BatchNorm2d
    assert len(list(model.parameters())) == 2
    assert_close(model(x), before)


# Others -----------------------------------------------------------------------------------


def test_layer_norm():
    norm = LayerNorm(6)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    x = torch.randn(2, 6, 3, 4)
    expected = nn.functional.layer_norm(
        x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, norm.eps
    )
    assert_close(norm(x), expected.permute(0, 3, 1, 2))


def test_naive_sync_bn_on_one_process():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    one, other = NaiveSyncBatchNorm(3, stats_mode="N"), nn.BatchNorm2d(3)
    assert_close(one(x), other(x))
    assert_close(one.running_var, other.running_var)
    assert_close(one.eval()(x), other.eval()(x))
    with pytest.raises(ValueError, match="stats_mode"):
        NaiveSyncBatchNorm(3, stats_mode="x")


def test_cycle_batch_norm():
    torch.manual_seed(0)
    norms = CycleBatchNormList(2, num_features=3)
    low, high = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5) + 5
    for _ in range(2):
        norms(low)
        norms(high)
    assert norms[0].running_mean.abs().max() < 0.5
    assert norms[1].running_mean.min() > 0.5
    assert set(dict(norms.named_parameters())) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("LN", LayerNorm),
        ("GN", nn.GroupNorm),
    ],
)
def test_get_norm(name, kind):
    norm = get_norm(name, 64)
    assert isinstance(norm, kind)
    assert norm.weight.shape == (64,)


def test_get_norm_other_arguments():
    assert get_norm("GN", 64).num_groups == 32
    assert get_norm(None, 3) is None
    assert get_norm("", 3) is None
    assert get_norm(lambda channels: nn.GroupNorm(1, channels), 3).num_groups == 1
    with pytest.raises(KeyError, match="no norm named 'XN'; there are BN"):
        get_norm("XN", 3)


@pytest.fixture
def two_alike(monkeypatch):
    """Two processes that have the same images: each sum over both is twice one's own, and one
    process with all images is the reference.
    """
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronized_on_cpus(two_alike, momentum):
    torch.manual_seed(0)
    images, target = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    part = images.clone().requires_grad_()
    whole = images.repeat(2, 1, 1, 1).requires_grad_()
    norm, expected = get_norm("SyncBN", 3), nn.BatchNorm2d(3, momentum=momentum)
    norm.momentum = momentum
    for module in (norm, expected):
        module.weight.data = torch.tensor([1.0, 2, 3])
        module.bias.data = torch.tensor([1.0, 0, 3])
    for _ in range(2):
        ours, theirs = norm(part), expected(whole)
        (ours - target).square().sum().backward()
        (theirs - target.repeat(2, 1, 1, 1)).square().sum().backward()
        assert_close(ours, theirs[:2], atol=1e-5, rtol=1e-5)
    assert_close(part.grad, whole.grad[:2], atol=1e-4, rtol=1e-4)
    for name in ("weight", "bias"):
        grad = getattr(expected, name).grad / 2
        assert_close(getattr(norm, name).grad, grad, atol=1e-3, rtol=1e-4)
    for name, value in expected.named_buffers():
        assert_close(getattr(norm, name), value)
    assert norm(part.bfloat16()).dtype == torch.bfloat16


def test_synchronized_with_a_mean_far_above_the_deviation(two_alike):
    torch.manual_seed(0)
    images = 300 + 0.05 * torch.randn(2, 3, 4, 4)
    norm, expected = get_norm("SyncBN", 3), nn.BatchNorm2d(3).double()
    assert_close(norm(images), expected(images.double()).float(), atol=1e-5, rtol=1e-5)
    assert_close(norm(torch.full_like(images, 300.3)), torch.zeros_like(images))
