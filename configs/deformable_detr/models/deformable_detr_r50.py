"""Deformable-DETR with a ResNet-50: one of the two full model trees that the variants change.

`embed_dim`, `num_classes`, `num_queries` and `num_levels` are said once.
"""

from detectron2.config import LazyCall as L
from torch import nn

from detrex.layers import sine_position_embedding
from detrex.modeling.backbone import BasicStem, ResNet
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.decoder import Decoder
from detrex.modeling.detr import DETR
from detrex.modeling.encoder import Encoder
from detrex.modeling.heads import BoxHead, ClassHead
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.neck import ChannelMapper
from detrex.modeling.postprocess import TopKSigmoid
from detrex.modeling.predictor import BoxPredictor
from detrex.modeling.queries import LearnedQueries
from detrex.modeling.query_pos import FixedPosition
from detrex.modeling.transformer import (
    DetrTransformer,
    deformable_decoder_layer,
    deformable_encoder_layer,
)

model = L(DETR)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=1,
    ),
    neck=L(ChannelMapper)(
        out_channels="${..embed_dim}",
        num_outs="${..transformer.num_levels}",
        kernel_size=1,
        norm_layer=L(nn.GroupNorm)(num_groups=32, num_channels="${...embed_dim}"),
    ),
    position_embedding=L(sine_position_embedding)(
        embed_dim="${..embed_dim}", temperature=10000, normalize=True, offset=-0.5
    ),
    transformer=L(DetrTransformer)(
        num_levels=4,
        embed_dim="${..embed_dim}",
        encoder=L(Encoder)(
            layer=L(deformable_encoder_layer)(
                embed_dim="${....embed_dim}",
                num_heads=8,
                feedforward_dim=1024,
                dropout=0.1,
                num_levels="${...num_levels}",
            ),
            num_layers=6,
        ),
        queries=L(LearnedQueries)(
            num_queries="${...num_queries}",
            embed_dim="${...embed_dim}",
            learned_content=True,
            anchored=True,
        ),
        groups=L("builtins.dict")(),
        decoder=L(Decoder)(
            layer=L(deformable_decoder_layer)(
                embed_dim="${....embed_dim}",
                num_heads=8,
                feedforward_dim=1024,
                dropout=0.1,
                num_levels="${...num_levels}",
            ),
            num_layers=6,
            query_pos=L(FixedPosition)(),
            predictor=L(BoxPredictor)(
                num_layers="${..num_layers}",
                class_embed=L(ClassHead)(
                    embed_dim="${.....embed_dim}", num_classes="${.....num_classes}"
                ),
                bbox_embed=L(BoxHead)(embed_dim="${.....embed_dim}", size_bias=-2.0),
                refine=False,
                share_heads=True,
            ),
        ),
    ),
    criterion=L(SetCriterion)(
        num_classes="${..num_classes}",
        matcher=L(HungarianMatcher)(
            cost_class=2.0,
            cost_bbox=5.0,
            cost_giou=2.0,
            cost_class_type="focal_loss_cost",
            alpha=0.25,
            gamma=2.0,
        ),
        weight_dict={"loss_class": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0},
        loss_class_type="focal_loss",
        alpha=0.25,
        gamma=2.0,
    ),
    postprocess=L(TopKSigmoid)(num_boxes=300),
    aux_loss=True,
    pixel_mean=None,  # as the backbone's weights expect
    pixel_std=None,
    embed_dim=256,
    num_classes=80,
    num_queries=300,
)
