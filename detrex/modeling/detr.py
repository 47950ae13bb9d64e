"""The meta-architecture: images in, losses or detections out, for every DETR.

Letters: ``B`` batch, ``C`` channels, ``H``, ``W`` height and width, ``L`` levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone, detector_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn

from detrex.layers import BaseTransformerLayer, box_xyxy_to_cxcywh

from .backbone.pixels import IMAGENET_RGB
from .checks import check_counts, check_inputs, check_targets
from .criterion import SetCriterion
from .neck import ChannelMapper
from .predictions import Prediction, Targets
from .transformer import DetrTransformer

Sizes = list[tuple[int, int]]


class Features(NamedTuple):
    """Feature levels of a batch, finest first."""

    maps: list[Tensor]
    """Per level ``(B, C, H, W)``."""
    masks: list[Tensor]
    """Per level ``(B, H, W)``, True on padding."""
    padded: bool
    """Whether any mask is True anywhere."""


class DETR(nn.Module):
    """preprocess -> backbone -> neck -> transformer -> criterion, or post-processing.

    Args:
        backbone: a detectron2 backbone.
        neck: maps the backbone's features to levels of ``C`` channels. If it doesn't know its
            inputs yet, it learns them from the backbone here.
        position_embedding: maps a padding mask ``(B, H, W)``, the dtype and whether any of it is
            padding to ``(B, C, H, W)``.
        transformer: encoder, queries and decoder.
        criterion: the training loss.
        postprocess: maps logits and boxes of the last layer to detections.
        num_classes: classes of the data set; configs let everything else refer to it.
        num_queries: queries, likewise.
        embed_dim: channels ``C``, likewise.
        aux_loss: train every decoder layer instead of the last alone.
        pixel_mean, pixel_std: per channel, in the units and the channel order of the images. None
            is what the backbone's weights expect, as its attributes of these names say, or
            ImageNet's RGB values if it has none.
        activation_checkpointing: in training compute the transformer's layers twice rather than
            keep what they hold; backbones have a switch of their own.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: ChannelMapper,
        position_embedding: nn.Module,
        transformer: DetrTransformer,
        criterion: SetCriterion,
        postprocess: nn.Module,
        num_classes: int,
        num_queries: int,
        embed_dim: int = 256,
        aux_loss: bool = True,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(num_classes=num_classes, num_queries=num_queries)
        if criterion.num_classes != num_classes:
            raise ValueError(
                f"model.num_classes is {num_classes}, but model.criterion.num_classes "
                f"{criterion.num_classes}: let the latter refer to the former."
            )
        neck.connect(backbone.output_shape())
        self.backbone = backbone
        self.neck = neck
        self.position_embedding = position_embedding
        self.transformer = transformer
        self.criterion = criterion
        self.postprocess = postprocess
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.embed_dim = embed_dim
        self.aux_loss = aux_loss
        for module in transformer.modules():
            if isinstance(module, BaseTransformerLayer):
                module.activation_checkpointing = activation_checkpointing
        if pixel_mean is None:
            pixel_mean = getattr(backbone, "pixel_mean", IMAGENET_RGB.mean)
        if pixel_std is None:
            pixel_std = getattr(backbone, "pixel_std", IMAGENET_RGB.std)
        as_buffer = lambda values: torch.tensor(list(values)).view(-1, 1, 1)  # noqa: E731
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", as_buffer(pixel_mean), persistent=False)
        self.register_buffer("pixel_std", as_buffer(pixel_std), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model, and so its input, lives."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """A batch as detectron2 loaders make it, each image a dictionary.

        Args:
            batched_inputs: ``image``, ``(channels, H, W)``, 0-255; for training ``instances``
                with ``gt_boxes`` (pixels, xyxy) and ``gt_classes``; for evaluation optionally
                ``height`` and ``width``, the size that boxes are reported in.

        Returns:
            in training a dictionary of weighted losses, otherwise per image ``{"instances":
            Instances}`` with ``pred_boxes``, ``scores``, ``pred_classes``, best first.
        """
        images = self.preprocess(batched_inputs)
        if self.training:
            targets = self.prepare_targets(batched_inputs)
            predictions = self.predict(images, targets)
            if not self.aux_loss:
                predictions = [p for p in predictions if not p.auxiliary]
            return self.criterion.weighted(self.criterion(predictions, targets))
        last = self.predict(images)[0]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        found = self.postprocess(last.logits, last.boxes).instances(sizes)
        return [
            {"instances": detector_postprocess(f, x.get("height", h), x.get("width", w))}
            for f, x, (h, w) in zip(found, batched_inputs, sizes, strict=True)
        ]

    def predict(self, images: list[Tensor], targets: Targets | None = None) -> list[Prediction]:
        """Normalized images ``(channels, H, W)`` -> predictions, the last layer's first.

        With ``targets`` there are also those of queries that only train.
        """
        maps, masks, padded = self.features(images)
        dtype = self.pixel_mean.dtype
        pos = [self.position_embedding(mask, dtype=dtype, padded=padded) for mask in masks]
        return self.transformer(maps, masks, pos, padded, targets)

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> list[Tensor]:
        """Images on the model's device and in its dtype, normalized, each of its own size.

        Raises:
            ValueError: pixels are NaN or infinite; names the image.
        """
        check_inputs(batched_inputs)
        mean, std = self.pixel_mean, self.pixel_std
        return [(x["image"].to(mean, non_blocking=True) - mean) / std for x in batched_inputs]

    def features(self, images: list[Tensor]) -> Features:
        """Feature levels of images of any sizes.

        In training the images share one canvas, as the published models were trained. In
        evaluation each size has its own: convolutions and norms would otherwise carry the padding
        into the image, and an image would look different with every batch it is in.
        """
        groups: dict[Any, list[int]] = {}
        for i, image in enumerate(images):
            groups.setdefault("batch" if self.training else image.shape, []).append(i)
        maps: dict[int, list[Tensor]] = {}
        valid: dict[int, list[tuple[int, ...]]] = {}
        for members in groups.values():
            canvas = ImageList.from_tensors(
                [images[i] for i in members],
                self.backbone.size_divisibility,
                padding_constraints=self.backbone.padding_constraints,
            )
            levels = self.neck(self.backbone(canvas.tensor))
            canvas_size = canvas.tensor.shape[-2:]
            for row, i in enumerate(members):
                size = images[i].shape[-2:]
                maps[i] = [level[row] for level in levels]
                valid[i] = [_valid_size(size, canvas_size, level.shape[-2:]) for level in levels]
        order = range(len(images))
        return _batch_levels([maps[i] for i in order], [valid[i] for i in order])

    def prepare_targets(self, batched_inputs: list[dict[str, Any]]) -> Targets:
        """Per image ``labels (T,)`` and ``boxes (T, 4)``, normalized cxcywh.

        Raises:
            ValueError: a class is not below ``num_classes``, or a box not finite; names the image.
        """
        check_targets(batched_inputs, self.num_classes)
        targets: Targets = []
        for x in batched_inputs:
            # Computed where they are, most likely on the CPU: a GPU then need not be waited for.
            instances = x["instances"]
            height, width = instances.image_size
            boxes = instances.gt_boxes.tensor.to(self.pixel_mean.dtype)
            boxes = box_xyxy_to_cxcywh(boxes / boxes.new_tensor((width, height, width, height)))
            labels = instances.gt_classes.to(self.device, non_blocking=True)
            targets.append({"labels": labels, "boxes": boxes.to(self.device, non_blocking=True)})
        return targets


def _valid_size(
    image: Sequence[int], canvas: Sequence[int], level: Sequence[int]
) -> tuple[int, ...]:
    """Rows and columns of a feature level that show at least a part of the image."""
    return tuple(-(-i * n // c) for i, c, n in zip(image, canvas, level, strict=True))


def _batch_levels(maps: list[list[Tensor]], valid: list[list[tuple[int, ...]]]) -> Features:
    """Levels of each image ``(C, h, w)``, and how much of them is image, as one batch."""
    batched, masks, padded = [], [], False
    for levels, sizes in zip(zip(*maps, strict=True), zip(*valid, strict=True), strict=True):
        height, width = (max(level.shape[axis] for level in levels) for axis in (-2, -1))
        mask = torch.ones(len(levels), height, width, dtype=torch.bool)
        for row, (h, w) in enumerate(sizes):
            mask[row, :h, :w] = False
        padded = padded or any(size != (height, width) for size in sizes)
        masks.append(mask.to(levels[0].device, non_blocking=True))
        full = [F.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2])) for m in levels]
        batched.append(torch.stack(full))
    return Features(batched, masks, padded)
