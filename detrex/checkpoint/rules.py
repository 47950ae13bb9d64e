"""Names of weights elsewhere -> names here, as tables of regular expressions.

A name may have several candidates; the one that the model has is taken. A rule with two
replacements splits the columns of a matrix in halves.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from detrex.checkpoint.backbone_rules import TIMM
from detrex.checkpoint.resnets import CAFFE2, DETECTRON2, TORCHVISION

Rule = tuple[str, str] | tuple[str, str, str]

_HEADS = r"(?:transformer\.decoder\.)?(class_embed|bbox_embed)"

UPSTREAM: tuple[Rule, ...] = (
    # the heads of one-head models, of decoder layer i, and (last) of the encoder's proposals
    (rf"{_HEADS}\.(weight|bias|layers\..*)", r"transformer.decoder.\1.0.\2"),
    (rf"{_HEADS}\.(\d+\..*)", r"transformer.decoder.\1.\2"),
    (rf"{_HEADS}\.\d+\.(.*)", r"transformer.queries.\1.\2"),
    (rf"{_HEADS}\.\d+\.(.*)", r"transformer.decoder.\1.0.\2"),
    (r"input_proj\.(weight|bias)", r"neck.convs.0.conv.\1"),
    (r"query_embed\.weight", r"transformer.queries.pos.weight"),
    (
        r"query_embedding\.weight",
        r"transformer.queries.pos.weight",
        r"transformer.queries.content.weight",
    ),
    (r"query_embedding\.weight", r"transformer.queries.content.weight"),
    (r"(?:transformer\.)?tgt_embed\.weight", r"transformer.queries.content.weight"),
    (
        r"(?:label_enc|denoising_generator\.label_encoder)\.weight",
        r"transformer.groups.denoising.labels.weight",
    ),
    (r"(?:refpoint_embed|anchor_box_embed)\.weight", r"transformer.queries.anchors.weight"),
    (r"transformer\.patterns\.weight", r"transformer.queries.patterns.weight"),
    (r"transformer\.reference_points\.(.*)", r"transformer.queries.anchor_head.\1"),
    (r"transformer\.enc_output\.(.*)", r"transformer.queries.output.\1"),
    (r"transformer\.enc_output_norm\.(.*)", r"transformer.queries.norm.\1"),
    (r"transformer\.pos_trans\.(.*)", r"transformer.queries.box_encoding.\1"),
    (r"transformer\.pos_trans_norm\.(.*)", r"transformer.queries.box_norm.\1"),
    (r"transformer\.decoder\.post_norm_layer\.(.*)", r"transformer.decoder.norm.\1"),
    (
        r"transformer\.decoder\.(query_scale|ref_point_head|ref_anchor_head)\.(.*)",
        r"transformer.decoder.query_pos.\1.\2",
    ),
    (r"transformer\.decoder\.ref_point_head\.(.*)", r"transformer.queries.anchor_head.\1"),
    (r"transformer\.encoder\.query_scale\.(.*)", r"transformer.encoder.pos_scale.\1"),
)
"""Detectors of the public detrex."""

BARE: tuple[Rule, ...] = ((r"(.+)", r"backbone.\1"), (r"(.+)", r"backbone.body.\1"))
"""A backbone alone, whose names are those of the model's, or of the network within that."""

RULES: tuple[Rule, ...] = (*UPSTREAM, *TORCHVISION, *DETECTRON2, *CAFFE2, *TIMM, *BARE)

NOT_WEIGHTS = re.compile(
    r".*(num_batches_tracked|criterion\..*|pixel_mean|pixel_std|_momentum"
    r"|relative_position_index|attn_mask|rope\w*\.freqs_(?:cos|sin))$"
)
"""Entries of a checkpoint that no model needs."""

ADDED_TO_BACKBONE = re.compile(r"backbone\.(?:norms|pyramid|norm\d|simfp_\d)\.")
"""What a detector adds to a pretrained network, so that no weights of the network have it."""

CLASSIFIER = re.compile(
    r"(?:backbone\.)?(?:stem\.)?(?:fc|classifier|head|linear)\..*|(?:fc1000|pred)_[wb]|conv1_b"
)
"""The head of a classification network, which a detector has no use for, and the bias that Caffe2
puts before a norm, which is zero."""


def model_names(name: str, known: Container[str]) -> tuple[str, ...]:
    """What the weight ``name`` of a file is called in a model with the names ``known``.

    That is one name; two if the halves of a matrix are two weights of the model; or none.
    """
    if name in known:
        return (name,)
    for candidate in _candidates(name):
        if all(own in known for own in candidate):
            return candidate
    return ()


def _candidates(name: str) -> Iterator[tuple[str, ...]]:
    for pattern, *replacements in RULES:
        match = re.fullmatch(pattern, name)
        if match:
            places = tuple(match.expand(replacement) for replacement in replacements)
            yield places
            yield tuple(place.removeprefix("backbone.") for place in places)  # a bare backbone
