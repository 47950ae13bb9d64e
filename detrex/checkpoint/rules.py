"""Names of weights elsewhere -> names here, as tables of regular expressions.

A name may have several candidates; the one that the model has is taken. A rule with two targets
splits the columns of a matrix in halves.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

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
    (r"tgt_embed\.weight", r"transformer.queries.content.weight"),
    (r"refpoint_embed\.weight", r"transformer.queries.anchors.weight"),
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
    (r"transformer\.encoder\.query_scale\.(.*)", r"transformer.encoder.pos_scale.\1"),
)
"""Detectors of the public detrex."""

_BACKBONE = r"(?:backbone\.)?(?:body\.)?"


def _stage(theirs: str, ours: str) -> tuple[Rule, ...]:
    block = rf"{_BACKBONE}{theirs}\.(\d+)"
    return (
        (rf"{block}\.(conv\d\..*)", rf"backbone.{ours}.\1.\2"),
        (rf"{block}\.bn(\d)\.(.*)", rf"backbone.{ours}.\1.conv\2.norm.\3"),
        (rf"{block}\.downsample\.0\.(.*)", rf"backbone.{ours}.\1.shortcut.\2"),
        (rf"{block}\.downsample\.1\.(.*)", rf"backbone.{ours}.\1.shortcut.norm.\2"),
    )


TORCHVISION: tuple[Rule, ...] = (
    (rf"{_BACKBONE}conv1\.weight", r"backbone.stem.conv1.weight"),
    (rf"{_BACKBONE}bn1\.(.*)", r"backbone.stem.conv1.norm.\1"),
    *_stage("layer1", "res2"),
    *_stage("layer2", "res3"),
    *_stage("layer3", "res4"),
    *_stage("layer4", "res5"),
)
"""ResNets of torchvision and timm, alone or within a detector."""

DETECTRON2: tuple[Rule, ...] = ((r"(?:bottom_up\.)?((?:stem|res[2-5])\..*)", r"backbone.\1"),)
"""ResNets of detectron2, without the detector around them."""

RULES: tuple[Rule, ...] = (*UPSTREAM, *TORCHVISION, *DETECTRON2)

NOT_WEIGHTS = re.compile(r".*(num_batches_tracked|criterion\..*|pixel_mean|pixel_std)$")
"""Entries of a checkpoint that no model needs."""

CLASSIFIER = re.compile(r"(?:backbone\.)?(?:fc|classifier|head|linear)\..*")
"""The head of a classification network, which a detector has no use for."""


def targets(name: str, known: Container[str]) -> tuple[str, ...]:
    """Where ``name`` goes in a model that has the names ``known``: one place, two, or none."""
    if name in known:
        return (name,)
    for candidate in _candidates(name):
        if all(target in known for target in candidate):
            return candidate
    return ()


def _candidates(name: str) -> Iterator[tuple[str, ...]]:
    for pattern, *replacements in RULES:
        match = re.fullmatch(pattern, name)
        if match:
            yield tuple(match.expand(replacement) for replacement in replacements)
