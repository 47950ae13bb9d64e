"""The same models by others, with random weights and without downloads.

All of them take ``H, W``, a device and a dtype, and give a function that runs the model once. The
models of transformers get normalized images and give logits and boxes, so what is left out there,
normalization and the choice of detections, is done by ours and by torchvision's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from common import options, peer, write
from torch import Tensor, nn

from detrex.benchmark import Clock, Work, prepare

Sizes = tuple[int, int]
MeasureModel = Callable[[str, argparse.Namespace, torch.device, Clock], dict[str, Any]]

# Upstream calls them by other names; what isn't said here is the same by default.
TWO_STAGE = {"two_stage": True, "with_box_refine": True}
TRANSFORMERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "DETR": ("Detr", {}),
    "Conditional-DETR": ("ConditionalDetr", {}),
    "DAB-DETR": ("DabDetr", {}),
    "Deformable-DETR": ("DeformableDetr", {}),
    "Deformable-DETR with refinement": ("DeformableDetr", {"with_box_refine": True}),
    # transformers has no DINO; this has its encoder, its two stages and as many queries
    "two-stage Deformable-DETR, 900 queries": (
        "DeformableDetr",
        {**TWO_STAGE, "two_stage_num_proposals": 900, "num_queries": 900}
        | {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048},
    ),
}


def measure_models(
    doc: str | None,
    models: Iterable[str],
    size: Sizes,
    peers: Sequence[str],
    measure: MeasureModel,
    dtypes: Sequence[str] = ("float32",),
) -> None:
    """Run a script that compares models, from its command line to its json file.

    Args:
        doc: of the script.
        models: names of ours.
        size: height and width of the images, if the command line has no other.
        peers: packages to compare with, unless the command line names others.
        measure: compares one model, by its name.
        dtypes: of the weights, from which the command line chooses.
    """
    parser = options(doc)
    parser.add_argument("--size", type=int, nargs=2, default=size, metavar=("H", "W"))
    parser.add_argument("--dtype", default=dtypes[0], choices=dtypes)
    parser.add_argument("--peers", nargs="*", default=peers, help="none: only ours")
    args = parser.parse_args()
    if args.peers and min(args.size) < 256:
        parser.error("--size: 900 proposals need 256 x 256 pixels; --peers without a name does.")
    device, clock = prepare(args)
    args.peers = [name for name in args.peers if peer(name)]
    names = [name for name in models if args.only in name]
    write(args, {name: measure(name, args, device, clock) for name in names})


def transformers_model(name: str, **options: Any) -> nn.Module:
    """A model of transformers with 80 classes and random weights, from its configuration."""
    import transformers

    prefix, own = TRANSFORMERS[name]
    config = getattr(transformers, f"{prefix}Config")(num_labels=80, **own, **options)
    model: nn.Module = getattr(transformers, f"{prefix}ForObjectDetection")(config)
    return model


def transformers_inference(
    name: str, size: Sizes, device: torch.device, dtype: torch.dtype
) -> Work:
    """Inference of a model of transformers."""
    model = transformers_model(name).eval().to(device, dtype)
    image = torch.randn(1, 3, *size, device=device, dtype=dtype)
    mask = torch.ones(1, *size, dtype=torch.long, device=device)
    return without_gradients(lambda: model(pixel_values=image, pixel_mask=mask))


def torchvision_inference(size: Sizes, device: torch.device, dtype: torch.dtype) -> Work:
    """Faster R-CNN with the same ResNet-50, at the same size."""
    import torchvision

    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=min(size), max_size=max(size)
    )
    model.eval().to(device, dtype)
    image = torch.rand(3, *size, device=device, dtype=dtype)
    return without_gradients(lambda: model([image]))


def without_gradients(work: Callable[[], Any]) -> Work:
    """The work within ``torch.no_grad``."""

    @torch.no_grad()
    def run() -> Any:
        return work()

    return run


class TransformersStep:
    """A training step of a model of transformers with all auxiliary losses, by AdamW."""

    def __init__(
        self, name: str, labels: list[dict[str, Tensor]], size: Sizes, device: torch.device
    ) -> None:
        self.model = transformers_model(name, auxiliary_loss=True).train().to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=1e-4)
        self.inputs = {
            "pixel_values": torch.randn(len(labels), 3, *size, device=device),
            "pixel_mask": torch.ones(len(labels), *size, dtype=torch.long, device=device),
            "labels": [{key: value.to(device) for key, value in x.items()} for x in labels],
        }

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.model(**self.inputs).loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
