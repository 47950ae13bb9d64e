"""What wrapping a network costs, and what folding frozen norms gains in inference.

    python benchmarks/backbones.py --output backbones.json

Each pair runs in turns in one process, on the same weights and the same image. What counts is the
median of the ratios of neighboring runs. On a machine that does other things as well, --cpu-time
with --threads 1 tells more, and so does the share of a run that is spent outside the network.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from common import write_json
from torch import Tensor, nn

from detrex.modeling.backbone import (
    BasicStem,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    fold_frozen_norms,
)

Pair = tuple[nn.Module, nn.Module]
Clock = Callable[[], float]


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
    "ResNet-50, folded / frozen norms": folding_pair,
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


def seconds(run: nn.Module, image: Tensor, clock: Clock) -> float:
    start = clock()
    features = run(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    end = clock()
    del features  # giving the memory back is not measured
    return end - start


@torch.no_grad()
def share_outside(backbone: nn.Module, image: Tensor, repeats: int, clock: Clock) -> float:
    """Median share of a run in which the network that is wrapped does not run."""
    network = backbone.get_submodule(
        "timm_model" if isinstance(backbone, TimmBackbone) else "feature_extractor"
    )
    times: list[float] = []
    hooks = [
        network.register_forward_pre_hook(lambda *_: times.append(clock())),
        network.register_forward_hook(lambda *_: times.append(clock())),
    ]
    shares = []
    for _ in range(repeats):
        times.clear()
        total = seconds(backbone, image, clock)
        start, end = times
        shares.append(1 - (end - start) / total)
    for hook in hooks:
        hook.remove()
    return statistics.median(shares)


@torch.no_grad()
def measure(pair: Pair, image: Tensor, repeats: int, clock: Clock) -> dict[str, float]:
    """Seconds of either (median), and the ratio first / second (median and quartiles)."""
    first, second = (network.to(image.device) for network in pair)
    difference = largest_difference(first(image), second(image))
    times: list[tuple[float, float]] = []
    for repeat in range(repeats):
        # who comes first changes, so that neither always runs into a warm or a busy machine
        order = (first, second) if repeat % 2 else (second, first)
        taken = {id(run): seconds(run, image, clock) for run in order}
        times.append((taken[id(first)], taken[id(second)]))
    low, middle, high = statistics.quantiles([a / b for a, b in times], n=4)
    result = {
        "seconds": statistics.median(a for a, _ in times),
        "seconds_reference": statistics.median(b for _, b in times),
        "ratio": middle,
        "ratio_lower_quartile": low,
        "ratio_upper_quartile": high,
        "ratio_of_fastest": min(a for a, _ in times) / min(b for _, b in times),
        "largest_relative_difference": difference,
    }
    if not isinstance(first, ResNet):
        result["share_outside_network"] = share_outside(first, image, repeats, clock)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="measure the pairs whose name contains this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(224, 448), metavar=("H", "W"))
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--cpu-time", action="store_true", help="instead of that on the wall")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    image = torch.randn(args.batch, 3, *args.size, device=args.device)
    clock = time.process_time if args.cpu_time else time.perf_counter
    results = {}
    for name, pair in PAIRS.items():
        if args.only not in name:
            continue
        result = results[name] = measure(pair(), image, args.repeats, clock)
        print(name, *(f"  {key}: {value:.3g}" for key, value in result.items()), sep="\n")
    if args.output:
        setting = {name: value for name, value in vars(args).items() if name != "output"}
        setting.update(torch=torch.__version__, threads=torch.get_num_threads())
        write_json(args.output, {"setting": setting, "results": results})


if __name__ == "__main__":
    main()
