"""The meta-architecture: images in, losses or detections out, for every DETR.

Letters: ``B`` batch, ``C`` channels, ``H``, ``W`` height and width, ``D`` detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import Backbone, detector_postprocess
from torch import Tensor, nn

from detrex.modeling.backbone.pixels import IMAGENET_RGB
from detrex.modeling.checks import (
    check_can_checkpoint,
    check_counts,
    check_inputs,
    check_same_classes,
    check_targets,
)
from detrex.modeling.criterion.core import Criterion
from detrex.modeling.levels import Levels, image_levels, tensor_levels
from detrex.modeling.neck import Neck
from detrex.modeling.predictions import Prediction, Targets
from detrex.modeling.shared import connect_shared
from detrex.modeling.targets import targets_from_instances
from detrex.modeling.transformer import DetrTransformer


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
        neck: Neck,
        position_embedding: nn.Module,
        transformer: DetrTransformer,
        criterion: Criterion,
        postprocess: nn.Module,
        num_classes: int,
        num_queries: int,
        embed_dim: int = 256,
        aux_loss: bool = True,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, num_queries=num_queries)
        check_same_classes(num_classes, criterion.num_classes)
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
        if activation_checkpointing:
            for part in (transformer.encoder, transformer.decoder):
                check_can_checkpoint(part)
                part.activation_checkpointing = True
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        for name, values in (("mean", pixel_mean), ("std", pixel_std)):
            if values is None:
                values = getattr(backbone, f"pixel_{name}", getattr(IMAGENET_RGB, name))
            column = torch.tensor(list(values)).view(-1, 1, 1)
            self.register_buffer(f"pixel_{name}", column, persistent=False)
        connect_shared(self)

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

    def detect(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Detections from tensors to tensors, best first: what is exported and deployed.

        No Python number depends on sizes, so :func:`torch.export.export` keeps batch, height and
        width dynamic (:class:`~detrex.modeling.inference.TensorDetector`). :meth:`forward` does the
        same with dictionaries, gives images of each size a canvas of their own, and clips and
        rescales boxes as detectron2 does.

        Args:
            images: ``(B, channels, H, W)``, 0-255, padded at the right and bottom to one size.
            sizes: ``(B, 2)`` integers on their device, (height, width) of each image; None if none
                is padded. Near the padding, features differ a little from those of the image alone.

        Returns:
            boxes ``(B, D, 4)``, xyxy in pixels, scores ``(B, D)`` and labels ``(B, D)``.
        """
        images = (images.to(self.pixel_mean) - self.pixel_mean) / self.pixel_std
        levels, sizes = tensor_levels(self.backbone, self.neck, images, sizes)
        last = self._transform(levels)[0]
        found = self.postprocess(last.logits, last.boxes)
        return found.pixel_boxes(sizes), found.scores, found.classes

    def predict(self, images: list[Tensor], targets: Targets | None = None) -> list[Prediction]:
        """Normalized images ``(channels, H, W)`` -> predictions, the last layer's first.

        With ``targets`` there are also those of queries that only train.
        """
        return self._transform(self.features(images), targets)

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> list[Tensor]:
        """Images on the model's device and in its dtype, normalized, each of its own size.

        Raises:
            ValueError: pixels are NaN or infinite; names the image.
        """
        check_inputs(batched_inputs)
        mean, std = self.pixel_mean, self.pixel_std
        return [(x["image"].to(mean, non_blocking=True) - mean) / std for x in batched_inputs]

    def prepare_targets(self, batched_inputs: list[dict[str, Any]]) -> Targets:
        """Targets on the model's device, boxes in its dtype.

        Raises:
            ValueError: a class is not below ``num_classes``, or a box not finite; names the image.
        """
        check_targets(batched_inputs, self.num_classes)
        return targets_from_instances(batched_inputs, self.device, self.pixel_mean.dtype)

    def features(self, images: list[Tensor]) -> Levels:
        """Feature levels of normalized images of any sizes; in training they share a canvas."""
        return image_levels(self.backbone, self.neck, images, one_canvas=self.training)

    def _transform(self, levels: Levels, targets: Targets | None = None) -> list[Prediction]:
        dtype, padded = self.pixel_mean.dtype, levels.padded
        pos = [self.position_embedding(mask, dtype=dtype, padded=padded) for mask in levels.masks]
        return self.transformer(levels._replace(pos=pos), targets)
