"""What wrapping a network costs, and what folding frozen norms gains in inference.

    python benchmarks/backbones.py --output backbones.json

Each pair runs in turns in one process, on the same weights and the same image. What counts is the
median of the ratios of neighboring runs. On a machine that does other things as well, --cpu-time
with --threads 1 tells more, and so does the share of a run that is spent outside the network.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from common import compare, options, write
from torch import Tensor, nn

from detrex.benchmark import Clock, prepare
from detrex.benchmark.measure import synchronize
from detrex.modeling.backbone import (
    BasicStem,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    fold_frozen_norms,
)

Pair = tuple[nn.Module, nn.Module]


def timm_pair(name: str) -> Pair:
    """The wrapped network, and timm's own on the same weights."""
    wrapped = TimmBackbone(name, out_strides=(4, 8, 16, 32)).eval()
    size: dict[str, Any] = {"strict_img_size": False} if name.startswith("swin") else {}
    indices = [int(level[1:]) for level in wrapped.output_shape()]
    direct = timm.create_model(name, features_only=True, out_indices=indices, **size).eval()
    direct.load_state_dict(wrapped.timm_model.state_dict())
    return wrapped, direct


class TorchvisionTrunk(nn.Module):
    """What a torchvision network computes before its pooling, by calling its own modules."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        net: Any = self.network
        features = []
        if isinstance(net, torchvision.models.ResNet):
            x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
            for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
                x = layer(x)
                features.append(x)
        else:
            for index, layer in enumerate(net.features):
                x = layer(x)
                if index % 2:
                    features.append(x)
        return features


def torchvision_pair(name: str) -> Pair:
    """The wrapped network, and torchvision's own on the same weights."""
    nodes = None
    if not name.startswith("resnet"):
        nodes = {f"features.{i}": f"res{i // 2 + 2}" for i in (1, 3, 5, 7)}
    wrapped = TorchvisionBackbone(name, return_nodes=nodes).eval()
    network = torchvision.models.get_model(name).eval()
    network.load_state_dict(wrapped.feature_extractor.state_dict(), strict=False)
    return wrapped, TorchvisionTrunk(network).eval()


def folding_pair() -> Pair:
    """ResNet-50 with its norms folded, and with ``FrozenBatchNorm2d`` after each convolution."""
    stages = ResNet.make_default_stages(50, norm="FrozenBN", stride_in_1x1=False)
    names = ["res2", "res3", "res4", "res5"]
    plain = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=names).eval()
    for name, value in plain.named_buffers():
        value.uniform_(*((0.8, 1.2) if name.endswith(("weight", "var")) else (-0.1, 0.1)))
    return fold_frozen_norms(plain), plain


PAIRS: dict[str, Callable[[], Pair]] = {
    "TimmBackbone / timm, resnet50": lambda: timm_pair("resnet50"),
    "TimmBackbone / timm, swin_tiny": lambda: timm_pair("swin_tiny_patch4_window7_224"),
    "TorchvisionBackbone / torchvision, resnet50": lambda: torchvision_pair("resnet50"),
    "TorchvisionBackbone / torchvision, convnext_tiny": lambda: torchvision_pair("convnext_tiny"),
    "folded norms / frozen norms, ResNet-50": folding_pair,
}


def largest_difference(ours: Any, theirs: Any) -> float:
    """Between features by name and features in a list, relative to the largest value."""
    ours, theirs = (x.values() if isinstance(x, dict) else x for x in (ours, theirs))
    largest = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:  # timm's own Swin has its channels last
            b = b.movedim(-1, 1)
        largest = max(largest, float((a - b).abs().max() / b.abs().max()))
    return largest


@torch.no_grad()
def share_outside(backbone: nn.Module, image: Tensor, repeats: int, clock: Clock) -> float:
    """Median share of a run in which the network that is wrapped does not run."""
    network = backbone.get_submodule(
        "timm_model" if isinstance(backbone, TimmBackbone) else "feature_extractor"
    )
    times: list[float] = []

    def note(*_: Any) -> None:
        synchronize(image.device)
        times.append(clock())

    hooks = [network.register_forward_pre_hook(note), network.register_forward_hook(note)]
    shares = []
    for _ in range(repeats):
        times.clear()
        note()
        backbone(image)
        note()
        start, enter, leave, end = times
        shares.append(1 - (leave - enter) / (end - start))
    for hook in hooks:
        hook.remove()
    return statistics.median(shares)


@torch.no_grad()
def measure(name: str, image: Tensor, repeats: int, clock: Clock) -> dict[str, Any]:
    """Compare a pair: seconds of either, how far they are apart, and what wrapping adds."""
    ours, theirs = (network.to(image.device) for network in PAIRS[name]())
    first, second = name.partition(",")[0].split(" / ")
    works = {first: partial(ours, image), second: partial(theirs, image)}
    result = compare(first, works, repeats, image.device, clock)
    result["largest relative difference"] = largest_difference(ours(image), theirs(image))
    if not isinstance(ours, ResNet):
        result["share outside of the network"] = share_outside(ours, image, repeats, clock)
    return result


def main() -> None:
    parser = options(__doc__, repeats=21)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(224, 448), metavar=("H", "W"))
    args = parser.parse_args()
    device, clock = prepare(args)
    image = torch.randn(args.batch, 3, *args.size, device=device)
    results = {}
    for name in (name for name in PAIRS if args.only in name):
        print(name)
        results[name] = measure(name, image, args.repeats, clock)
    write(args, results)


if __name__ == "__main__":
    main()
