"""Denoising queries as modules of their own, as code written for the public detrex makes them.

The core has them as groups of queries (:mod:`detrex.modeling.query_groups`). Random numbers are
drawn in the public detrex's order, so seeds give its queries.

Letters: ``B`` images, ``D`` denoising queries, ``Q`` matching queries, ``C`` channels, ``N``
targets of all images, ``T`` those of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.layers.box_noise import noisy_centers_and_sizes, noisy_corners
from detrex.utils import inverse_sigmoid


def apply_label_noise(
    labels: Tensor, label_noise_prob: float = 0.2, num_classes: int = 80
) -> Tensor:
    """``(N,)`` classes, each replaced with this probability by one drawn from all."""
    if label_noise_prob <= 0:
        return labels
    changed = torch.rand(labels.shape, device=labels.device) < label_noise_prob
    drawn = torch.randint_like(labels[changed], num_classes)
    return labels.masked_scatter(changed, drawn)


def apply_box_noise(boxes: Tensor, box_noise_scale: float = 0.4) -> Tensor:
    """:func:`~detrex.layers.box_noise.noisy_centers_and_sizes`, of boxes ``(N, 4)``."""
    return noisy_centers_and_sizes(boxes, box_noise_scale) if box_noise_scale > 0 else boxes


class GenerateDNQueries(nn.Module):
    """Targets with noise on class and box, as queries, in groups that don't see each other.

    Source: "DN-DETR", arXiv:2203.01305.

    Args:
        num_queries: matching queries ``Q``, which come after these.
        num_classes: rows of ``label_encoder``; one more than there are classes if its last is to
            stand for "unknown".
        label_embed_dim: channels ``C``.
        denoising_groups: how often each target is repeated.
        label_noise_prob: probability of a class drawn at random.
        box_noise_scale: centers move by up to this times half the size, sizes change by up to this
            times themselves.
        with_indicator: the last channel is 1, to tell these queries from matching ones.
    """

    def __init__(
        self,
        num_queries: int = 300,
        num_classes: int = 80,
        label_embed_dim: int = 256,
        denoising_groups: int = 5,
        label_noise_prob: float = 0.2,
        box_noise_scale: float = 0.4,
        with_indicator: bool = False,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.num_classes = num_classes
        self.label_embed_dim = label_embed_dim
        self.denoising_groups = denoising_groups
        self.label_noise_prob = label_noise_prob
        self.box_noise_scale = box_noise_scale
        self.with_indicator = with_indicator
        self.label_encoder = nn.Embedding(num_classes, label_embed_dim - with_indicator)

    def forward(
        self, gt_labels_list: Sequence[Tensor], gt_boxes_list: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """Makes ``D = denoising_groups * max_gt_num_per_image`` queries for each image.

        Args:
            gt_labels_list: per image ``(T,)`` classes.
            gt_boxes_list: per image ``(T, 4)`` boxes, normalized cxcywh.

        Returns:
            - content ``(B, D, C)`` and boxes ``(B, D, 4)`` before their sigmoid, 0 where an image
              has fewer targets than ``max_gt_num_per_image``;
            - the mask ``(D + Q, D + Q)`` of self-attention, True where it is forbidden;
            - ``denoising_groups``;
            - ``max_gt_num_per_image``.
        """
        most = max(len(labels) for labels in gt_labels_list)
        groups = self.denoising_groups
        labels = torch.cat(list(gt_labels_list)).repeat(groups)
        boxes = torch.cat(list(gt_boxes_list)).repeat(groups, 1)
        content = self.label_encoder(
            apply_label_noise(labels, self.label_noise_prob, self.num_classes)
        )
        if self.with_indicator:
            content = torch.cat((content, torch.ones_like(content[:, :1])), 1)
        places = _places(gt_labels_list, groups)
        noisy = inverse_sigmoid(apply_box_noise(boxes, self.box_noise_scale))
        size = (len(gt_labels_list), groups * most)
        return (
            content.new_zeros(*size, self.label_embed_dim).index_put(places, content),
            noisy.new_zeros(*size, 4).index_put(places, noisy),
            self.generate_query_masks(most, labels.device),
            groups,
            most,
        )

    def generate_query_masks(self, max_gt_num_per_image: int, device: torch.device | str) -> Tensor:
        """The mask ``(D + Q, D + Q)`` of self-attention, True where it is forbidden."""
        return _mask(self.denoising_groups, max_gt_num_per_image, self.num_queries, device)


class GenerateCDNQueries(nn.Module):
    """Each target twice: a positive query with little noise and a negative query with more.

    Source: "DINO", arXiv:2203.03605.

    Args:
        num_queries: matching queries ``Q``, which come after these.
        num_classes: classes, rows of ``label_encoder``.
        label_embed_dim: channels ``C``.
        denoising_nums: positive queries, shared by as many groups as the image with the most
            targets allows, at least one.
        label_noise_prob: twice the probability of a class drawn at random.
        box_noise_scale: corners move by up to this times half the size, those of negative queries
            by once to twice that.
    """

    def __init__(
        self,
        num_queries: int = 300,
        num_classes: int = 80,
        label_embed_dim: int = 256,
        denoising_nums: int = 100,
        label_noise_prob: float = 0.5,
        box_noise_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.num_classes = num_classes
        self.label_embed_dim = label_embed_dim
        self.denoising_nums = denoising_nums
        self.label_noise_prob = label_noise_prob
        self.box_noise_scale = box_noise_scale
        self.label_encoder = nn.Embedding(num_classes, label_embed_dim)

    def forward(
        self, gt_labels_list: Sequence[Tensor], gt_boxes_list: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, int]]:
        """Makes ``D = dn_num * single_padding`` queries for each image.

        Args:
            gt_labels_list: per image ``(T,)`` classes.
            gt_boxes_list: per image ``(T, 4)`` boxes, normalized cxcywh.

        Returns:
            - content ``(B, D, C)`` and boxes ``(B, D, 4)`` before their sigmoid, 0 where an image
              has fewer targets than another;
            - the mask ``(D + Q, D + Q)`` of self-attention, True where it is forbidden;
            - ``single_padding``, the queries of a group (its positive ones first), and ``dn_num``,
              the number of groups.
        """
        most = max(len(labels) for labels in gt_labels_list)
        groups = max(1, self.denoising_nums // max(1, most))
        labels = torch.cat(list(gt_labels_list))
        count = len(labels)
        labels = labels.repeat(2 * groups)
        boxes = torch.cat(list(gt_boxes_list)).repeat(2 * groups, 1)
        labels = apply_label_noise(labels, self.label_noise_prob / 2, self.num_classes)
        if self.box_noise_scale > 0:
            negative = torch.arange(len(boxes), device=boxes.device) // max(1, count) % 2
            boxes = noisy_corners(boxes, self.box_noise_scale, negative)
        content, noisy = self.label_encoder(labels), inverse_sigmoid(boxes)
        places = _places(gt_labels_list, 2 * groups)
        size = (len(gt_labels_list), 2 * groups * most)
        return (
            content.new_zeros(*size, self.label_embed_dim).index_put(places, content),
            noisy.new_zeros(*size, 4).index_put(places, noisy),
            _mask(groups, 2 * most, self.num_queries, labels.device),
            {"single_padding": 2 * most, "dn_num": groups},
        )


def _places(labels: Sequence[Tensor], repeats: int) -> tuple[Tensor, Tensor]:
    """Image and position ``(repeats * N,)`` of the targets of all images, repeated."""
    counts = [len(own) for own in labels]
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).repeat(repeats)
    within = torch.cat([torch.arange(count) for count in counts]).repeat(repeats)
    copy = torch.arange(repeats).repeat_interleave(sum(counts))
    device = labels[0].device
    return image.to(device), (within + copy * max(counts)).to(device)


def _mask(groups: int, size: int, num_queries: int, device: torch.device | str) -> Tensor:
    """True where a query may not see another: all see the matching queries, which see only
    themselves, and the queries of a group also see their own group."""
    group = torch.arange(groups, device=device).repeat_interleave(size)
    group = torch.cat((group, group.new_full((num_queries,), groups)))
    forbidden = group[:, None] != group
    forbidden[:, groups * size :] = False
    return forbidden
