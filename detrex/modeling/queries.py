"""Seam 1: where the queries of the decoder come from.

Each class maps a :class:`Memory` to :class:`Queries`. Letters: ``B`` batch, ``Q`` queries, ``S``
tokens, ``C`` channels, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import MLP, get_sine_pos_embed
from detrex.modeling.memory import Memory
from detrex.modeling.predictions import MATCHED, OBJECTNESS, Prediction, Supervision
from detrex.utils import at_least_float32, inverse_sigmoid


@dataclass
class Group:
    """Consecutive queries that are supervised together and attend to each other alone."""

    size: int
    """Its queries."""
    parts: int = 1
    """Equal parts that don't see each other either."""
    sees_matching: bool = False
    """Whether its queries also attend to the matching ones."""
    suffix: str = "{layer}"
    """Of the names of its losses; ``{layer}`` is nothing for the last layer, then ``_0``, ..."""
    supervision: Supervision = MATCHED
    """What it is trained for."""


@dataclass
class Queries:
    """What the decoder starts with: the matching queries, then groups that only train."""

    content: Tensor
    """``(B, Q, C)``."""
    anchors: Tensor | None = None
    """``(B, Q, 2 or 4)``, points or cxcywh boxes in [0, 1], relative to the unpadded image."""
    pos: Tensor | None = None
    """``(B, Q, C)``, for models whose positions are learned rather than derived."""
    predictions: list[Prediction] = field(default_factory=list)
    """What the encoder predicts and is to be trained for (two-stage models)."""
    groups: list[Group] = field(default_factory=list)
    """Who is who, in order; empty if all are matching queries of one group."""

    def members(self) -> list[Group]:
        """The groups; one of all queries if none were told apart."""
        return self.groups or [Group(self.content.shape[1], supervision=MATCHED)]

    def first(self, count: int) -> Queries:
        """The first ``count`` queries, as one group."""
        cut = lambda x: None if x is None else x[:, :count]  # noqa: E731
        return replace(
            self,
            content=self.content[:, :count],
            anchors=cut(self.anchors),
            pos=cut(self.pos),
            groups=[],
        )

    def joined(self, content: Tensor, anchors: Tensor, pos: Tensor | None, group: Group) -> Queries:
        """These queries, followed by a group of others."""
        join = lambda x, y: None if x is None else torch.cat((x, y), 1)  # noqa: E731
        return replace(
            self,
            content=torch.cat((self.content, content), 1),
            anchors=join(self.anchors, anchors),
            pos=join(self.pos, pos),
            groups=[*self.members(), group],
        )

    def mask(self) -> Tensor | None:
        """``(Q, Q)``, True where self-attention is forbidden; None if it is nowhere."""
        groups = self.members()
        sizes = [group.size // group.parts for group in groups for _ in range(group.parts)]
        if len(sizes) == 1:
            return None
        repeat = lambda counts: torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))  # noqa: E731
        part, owner = repeat(sizes), repeat([group.size for group in groups])
        sees_matching = torch.tensor([group.sees_matching for group in groups])[owner]
        forbidden = (part[:, None] != part) & ~(sees_matching[:, None] & (owner == 0))
        return forbidden.to(self.content.device, non_blocking=True)


class LearnedQueries(nn.Module):
    """A learned position per query, for DETR, Conditional-DETR and Deformable-DETR.

    Args:
        num_queries: queries ``Q``.
        embed_dim: channels ``C``.
        learned_content: learn the content as well, instead of zeros.
        anchored: derive a 2-d anchor from the position.
        anchor_layers: linear layers that do so, one in Deformable-DETR (arXiv:2010.04159), two in
            Conditional-DETR (arXiv:2108.06152).
        num_groups: make ``num_groups * num_queries`` queries, for models that train groups of them
            (:class:`~detrex.modeling.query_groups.GroupCopies`).
    """

    def __init__(
        self,
        num_queries: int,
        embed_dim: int,
        learned_content: bool = False,
        anchored: bool = False,
        anchor_layers: int = 1,
        num_groups: int = 1,
    ) -> None:
        super().__init__()
        num_queries = num_queries * num_groups
        self.pos = nn.Embedding(num_queries, embed_dim)
        self.content = nn.Embedding(num_queries, embed_dim) if learned_content else None
        self.anchor_head: nn.Module | None = None
        if anchored and anchor_layers > 1:
            self.anchor_head = MLP(embed_dim, embed_dim, 2, anchor_layers)
        elif anchored:
            self.anchor_head = nn.Linear(embed_dim, 2)
            nn.init.zeros_(self.anchor_head.bias)

    def forward(self, memory: Memory) -> Queries:
        pos = self.pos.weight.expand(memory.tokens.shape[0], -1, -1)
        content = torch.zeros_like(pos)
        if self.content is not None:
            content = self.content.weight.expand_as(pos)
        anchors = None
        if self.anchor_head is not None:
            anchors = at_least_float32(self.anchor_head(pos)).sigmoid()
        return Queries(content, anchors, pos)


class AnchorTable(nn.Embedding):
    """Logits of anchor boxes, cxcywh: normal, or with centers spread evenly over the image.

    Args:
        num_anchors: anchors.
        uniform_centers: whether the centers are uniform in [0, 1], instead of their logits normal.
    """

    def __init__(self, num_anchors: int, uniform_centers: bool = False) -> None:
        self.uniform_centers = uniform_centers
        super().__init__(num_anchors, 4)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.uniform_centers:
            with torch.no_grad():
                self.weight[:, :2] = inverse_sigmoid(torch.rand_like(self.weight[:, :2]))


class LearnedAnchors(nn.Module):
    """A learned anchor box per query, for DAB-DETR (arXiv:2201.12329) and its relatives.

    Args:
        num_queries: queries ``Q``.
        embed_dim: channels ``C``.
        learned_content: learn the content of each query as well, instead of zeros.
        num_patterns: make ``num_patterns * num_queries`` queries, the same anchors with each of so
            many learned contents in turn; then ``learned_content`` counts for nothing.
        uniform_centers: start with centers spread evenly over the image.
        indicator: the last channel of ``learned_content`` is 0, for denoising queries to differ in.
        num_groups: make so many times as many queries, as in :class:`LearnedQueries`.
    """

    def __init__(
        self,
        num_queries: int,
        embed_dim: int,
        learned_content: bool = True,
        num_patterns: int = 0,
        uniform_centers: bool = False,
        indicator: bool = False,
        num_groups: int = 1,
    ) -> None:
        super().__init__()
        num_queries = num_queries * num_groups
        self.embed_dim = embed_dim
        self.anchors = AnchorTable(num_queries, uniform_centers)
        self.patterns = nn.Embedding(num_patterns, embed_dim) if num_patterns else None
        own_content = learned_content and not num_patterns
        self.content = nn.Embedding(num_queries, embed_dim - indicator) if own_content else None

    def forward(self, memory: Memory) -> Queries:
        anchors = at_least_float32(self.anchors.weight).sigmoid()
        if self.patterns is not None:
            content = self.patterns.weight.repeat_interleave(len(anchors), 0)
            anchors = anchors.repeat(self.patterns.num_embeddings, 1)
        elif self.content is not None:
            content = self.content.weight
            content = F.pad(content, (0, self.embed_dim - content.shape[-1]))
        else:
            content = memory.tokens.new_zeros(len(anchors), self.embed_dim)
        batch = memory.tokens.shape[0]
        return Queries(content.expand(batch, -1, -1), anchors.expand(batch, -1, -1))


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``(B, Q)`` of ``(B, S, n)`` -> ``(B, Q, n)``."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


class RankTable(nn.Embedding):
    """Contents by rank that start like the matrices of the transformer, as DINO's
    (arXiv:2203.03605)."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)


class TopScores(nn.Module):
    """The tokens with the highest scores, best first."""

    def forward(
        self, scores: Tensor, count: int, boxes: Callable[[Tensor], Tensor], memory: Memory
    ) -> Tensor:
        """Chooses tokens to become queries.

        Args:
            scores: ``(B, S)``.
            count: how many to take; fewer if there are fewer tokens.
            boxes: gives the boxes ``(B, n, 4)``, normalized cxcywh, of tokens ``(B, n)``. They are
                computed when it is called, for those tokens alone.
            memory: where the tokens come from.

        Returns:
            ``(B, Q)`` tokens.
        """
        return scores.topk(torch.sym_min(count, scores.shape[1]), 1).indices


class EncoderProposals(nn.Module):
    """The encoder's best tokens become anchors: two-stage DAB-Deformable-DETR, DINO.

    Every token predicts a class and a box near itself; the tokens of the highest score are taken.

    Args:
        num_queries: queries ``Q``; fewer if the image has fewer tokens.
        embed_dim: channels ``C``.
        class_embed: ``(..., C) -> (..., K)`` logits.
        bbox_embed: ``(..., C) -> (..., 4)`` change of the prior box, in logits.
        learned_content: content is learned per rank (mixed query selection of DINO,
            arXiv:2203.03605), instead of the features of the tokens taken.
        selection: takes the tokens, by scores and boxes; :class:`TopScores` if not given.
    """

    base_size = 0.05
    """Side of the prior boxes on the finest level, relative to the image; doubles per level."""

    def __init__(
        self,
        num_queries: int,
        embed_dim: int,
        class_embed: nn.Module,
        bbox_embed: nn.Module,
        learned_content: bool = False,
        selection: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.output = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.class_embed = class_embed
        self.bbox_embed = bbox_embed
        self.selection = TopScores() if selection is None else selection
        self.content: nn.Embedding | None = None
        if learned_content:
            self.content = RankTable(num_queries, embed_dim)

    def forward(self, memory: Memory) -> Queries:
        features, logits, priors = self.propose(memory)
        refine = lambda tokens, index: (self.bbox_embed(tokens) + pick(priors, index)).sigmoid()  # noqa: E731
        boxes = lambda index: refine(pick(features, index), index)  # noqa: E731
        index = self.selection(logits.amax(-1), self.num_queries, boxes, memory)
        tokens = pick(features, index)
        anchors = refine(tokens, index)
        if self.content is None:
            content = tokens.detach()
        else:
            content = self.content.weight[: index.shape[1]].expand_as(tokens)
        prediction = Prediction(pick(logits, index), anchors, "_enc", MATCHED)
        return Queries(content, anchors.detach(), predictions=[prediction])

    def propose(self, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Per token: features ``(B, S, C)``, logits ``(B, S, K)``, prior boxes ``(B, S, 4)`` in
        logits, to which :attr:`bbox_embed` of the features is added.

        Tokens whose prior box is cut by the border predict from nothing and a box that covers no
        object; tokens on padding, besides, have no score at all.
        """
        centers = memory.cell_centers()
        size = self.base_size * 2.0 ** memory.level_of_tokens().to(centers.dtype)
        priors = torch.cat((centers, size[:, None].expand_as(centers)), -1)
        usable = ((priors > 0.01) & (priors < 0.99)).all(-1)
        if memory.padding is not None:
            usable = usable & ~memory.padding
        tokens = self.norm(self.output(memory.tokens.masked_fill(~usable[..., None], 0.0)))
        logits = self.class_embed(tokens)
        if memory.padding is not None:
            logits = logits.masked_fill(memory.padding[..., None], -1e4)  # finite in half precision
        single = priors.float()  # as the published models have it
        base = (single / (1 - single)).log().to(priors.dtype)
        base = base.masked_fill(~usable[..., None], float("inf"))
        return tokens, logits, base


class BoxEncodedProposals(EncoderProposals):
    """Two-stage Deformable-DETR (arXiv:2010.04159): position and content are functions of the box.

    Proposals tell objects from background only: their score is class 0, all tokens are trained, and
    every object counts as class 0. With ``learned_content`` only the position follows from the box
    (H-DETR, arXiv:2207.13080).
    """

    def __init__(
        self,
        num_queries: int,
        embed_dim: int,
        class_embed: nn.Module,
        bbox_embed: nn.Module,
        learned_content: bool = False,
        selection: nn.Module | None = None,
    ) -> None:
        super().__init__(num_queries, embed_dim, class_embed, bbox_embed, selection=selection)
        self.content = nn.Embedding(num_queries, embed_dim) if learned_content else None
        self.box_encoding = nn.Linear(2 * embed_dim, 2 * embed_dim)
        self.box_norm = nn.LayerNorm(2 * embed_dim)
        self.embed_dim = embed_dim

    def forward(self, memory: Memory) -> Queries:
        tokens, logits, priors = self.propose(memory)
        boxes = self.bbox_embed(tokens) + priors
        fixed = boxes.detach()
        index = self.selection(
            logits[..., 0], self.num_queries, lambda index: pick(fixed, index).sigmoid(), memory
        )
        anchors = pick(fixed, index).sigmoid()
        sine = get_sine_pos_embed(anchors, self.embed_dim // 2, exchange_xy=False)
        pos, content = self.box_norm(self.box_encoding(sine.to(tokens.dtype))).chunk(2, -1)
        if self.content is not None:
            content = self.content.weight[: pos.shape[1]].expand_as(pos)
        prediction = Prediction(logits, boxes.sigmoid(), "_enc", OBJECTNESS)
        return Queries(content, anchors, pos, predictions=[prediction])
