"""Seam 3: queries that only train the model, beside those that are matched.

Each class maps queries, and the targets or None at evaluation, to queries. Letters: ``B`` images,
``D`` further queries, ``C`` channels, ``K`` classes, ``T`` the most targets of an image.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detrex.layers import get_sine_pos_embed
from detrex.layers.box_noise import noisy_centers_and_sizes, noisy_corners
from detrex.modeling.predictions import Supervision, Targets, map_targets
from detrex.modeling.queries import Group, Queries
from detrex.utils import inverse_sigmoid


class Denoising(nn.Module):
    """Targets with noise on class and box, as queries that should find the targets again.

    They come in groups that see themselves and the matching queries, which see none of them. The
    last channel of their content tells them from matching queries: 1 here, 0 there.

    Source: "DN-DETR", arXiv:2203.01305.

    Args:
        num_classes: classes ``K``.
        embed_dim: channels ``C``.
        num_groups: how often each target is repeated, with noise of its own.
        label_noise: probability of a class drawn at random, 0 to 1.
        box_noise: the center moves by up to this times half the size, the size changes by up to
            this times itself; 0 to 1.
        unknown_label: add the embedding of "unknown class" to the content of matching queries.
    """

    copies = 1
    """Queries for each target and group."""

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        num_groups: int = 5,
        label_noise: float = 0.2,
        box_noise: float = 0.4,
        unknown_label: bool = True,
    ) -> None:
        super().__init__()
        if num_groups < 1:
            raise ValueError(f"Denoising needs at least one group, not num_groups={num_groups}.")
        self.num_classes = num_classes
        self.num_groups = num_groups
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.unknown_label = unknown_label
        self.labels = nn.Embedding(num_classes + 1, embed_dim - 1)

    def forward(self, queries: Queries, targets: Targets | None) -> Queries:
        queries = self.mark_matching(queries)
        if targets is None:
            return queries
        if queries.anchors is None:
            raise ValueError("Denoising needs queries with anchors; DETR's have none.")
        counts = [len(target["labels"]) for target in targets]
        most = max(counts)
        groups = self.groups_for(most)
        repeats = groups * self.copies
        labels = pad_sequence([t["labels"] for t in targets], True).repeat(1, repeats)  # B D
        boxes = pad_sequence([t["boxes"] for t in targets], True).repeat(1, repeats, 1)  # B D 4
        real = torch.arange(most) < torch.tensor(counts)[:, None]
        real = real.to(boxes.device, non_blocking=True).repeat(1, repeats)[..., None]
        content = self.embed(self.noisy_labels(labels)) * real
        boxes = inverse_sigmoid(self.noisy_boxes(boxes, most)).sigmoid()  # as far as logits reach
        anchors = boxes.where(real, 0.5)[..., : queries.anchors.shape[-1]]
        pos = get_sine_pos_embed(anchors[..., :2], content.shape[-1] // 2)
        group = Group(
            size=most * repeats,
            parts=groups,
            sees_matching=True,
            suffix="_dn{layer}",
            supervision=Supervision(
                indices=[self._indices(count, most, groups) for count in counts],
                num_boxes_scale=float(groups),
            ),
        )
        return queries.joined(content, anchors, pos, group)

    def mark_matching(self, queries: Queries) -> Queries:
        """Tell matching queries from those made here."""
        if not self.unknown_label:
            return queries
        return replace(queries, content=queries.content + F.pad(self.labels.weight[-1], (0, 1)))

    def groups_for(self, most: int) -> int:
        """Number of groups if no image has more than ``most`` targets."""
        return self.num_groups

    def embed(self, labels: Tensor) -> Tensor:
        """``(B, D)`` classes -> content ``(B, D, C)``."""
        return F.pad(self.labels(labels), (0, 1), value=1.0)

    def noisy_labels(self, labels: Tensor) -> Tensor:
        """``(B, D)`` classes, some of them drawn at random."""
        drawn = torch.randint_like(labels, self.num_classes)
        return drawn.where(
            torch.rand(labels.shape, device=labels.device) < self.label_noise, labels
        )

    def noisy_boxes(self, boxes: Tensor, most: int) -> Tensor:
        """``(B, D, 4)`` cxcywh, moved and resized, inside the image."""
        return noisy_centers_and_sizes(boxes, self.box_noise)

    def _indices(self, count: int, most: int, groups: int) -> tuple[Tensor, Tensor]:
        """Queries of an image's ``count`` targets, and these targets, group by group."""
        target = torch.arange(count).repeat(groups)
        start = torch.arange(groups).repeat_interleave(count) * most * self.copies
        return start + target, target


class ContrastiveDenoising(Denoising):
    """Each target twice: a positive query with little noise and a negative query with more.

    Source: "DINO", arXiv:2203.03605. Content is the embedding of the class alone.

    Args:
        num_classes: classes ``K``.
        embed_dim: channels ``C``.
        num_pairs: queries of either kind, shared by as many groups as the image with the most
            targets allows, at least one.
        label_noise: twice the probability of a class drawn at random.
        box_noise: each corner moves by up to this times half the size, and by once to twice that
            in negative queries.
    """

    copies = 2

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        num_pairs: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
    ) -> None:
        if num_pairs < 1:
            raise ValueError(
                f"Denoising needs at least one pair, not num_pairs={num_pairs}; to train without "
                "it, leave it out of model.transformer.groups."
            )
        super().__init__(num_classes, embed_dim, 1, label_noise / 2, box_noise, unknown_label=False)
        self.num_pairs = num_pairs
        self.labels = nn.Embedding(num_classes, embed_dim)

    def groups_for(self, most: int) -> int:
        return max(1, self.num_pairs // max(1, most))

    def embed(self, labels: Tensor) -> Tensor:
        return self.labels(labels)

    def noisy_boxes(self, boxes: Tensor, most: int) -> Tensor:
        position = torch.arange(boxes.shape[1], device=boxes.device)
        negative = position // max(1, most) % 2  # D
        return noisy_corners(boxes, self.box_noise, negative)


class OneToMany(nn.Module):
    """The queries behind the first ``num_queries`` are matched with several copies of each target.

    They train beside the matching queries, neither seeing the other, and are left out at
    evaluation. Source: "DETRs with Hybrid Matching", arXiv:2207.13080.

    Args:
        num_queries: matching queries; ``transformer.queries`` makes more than that.
        repeats: copies of each target.
    """

    def __init__(self, num_queries: int, repeats: int = 6) -> None:
        super().__init__()
        if repeats < 1:
            raise ValueError(f"OneToMany needs at least one copy of a target, not {repeats}.")
        self.num_queries = num_queries
        self.repeats = repeats

    def forward(self, queries: Queries, targets: Targets | None) -> Queries:
        if targets is None:
            return queries.first(self.num_queries)
        matching, *others = queries.members()
        if matching.parts > 1:
            raise ValueError(
                "OneToMany and GroupCopies both split the matching queries: leave one of them out "
                "of model.transformer.groups."
            )
        kept = min(self.num_queries, matching.size)
        repeat = lambda _, rows: torch.cat([rows] * self.repeats)  # noqa: E731
        repeated = map_targets(targets, repeat)
        extra = Group(
            size=matching.size - kept,
            suffix="{layer}_one2many",
            supervision=Supervision(targets=repeated, num_boxes_scale=float(self.repeats)),
        )
        return replace(queries, groups=[replace(matching, size=kept), extra, *others])


class GroupCopies(nn.Module):
    """Several groups of queries, each matched with all targets, of which the first is kept.

    Source: "Group DETR", arXiv:2207.13085.

    Args:
        num_queries: queries of a group; ``transformer.queries`` makes ``num_groups`` times that.
        num_groups: groups in training.
    """

    def __init__(self, num_queries: int, num_groups: int = 11) -> None:
        super().__init__()
        if num_groups < 1:
            raise ValueError(f"GroupCopies needs at least one group, not num_groups={num_groups}.")
        self.num_queries = num_queries
        self.num_groups = num_groups

    def forward(self, queries: Queries, targets: Targets | None) -> Queries:
        if targets is None:
            return queries.first(self.num_queries)
        matching, *others = queries.members()
        if matching.size != self.num_queries * self.num_groups:
            raise ValueError(
                f"{self.num_groups} groups of {self.num_queries} queries need "
                f"{self.num_groups * self.num_queries} of them, but model.transformer.queries "
                f"makes {matching.size}: set its num_queries."
            )
        supervision = Supervision(
            num_groups=self.num_groups, num_boxes_scale=float(self.num_groups)
        )
        copies = replace(matching, parts=self.num_groups, supervision=supervision)
        return replace(queries, groups=[copies, *others])
