"""DETR with a ResNet-50: one of the two full model trees that the other variants change.

`embed_dim`, `num_classes` and `num_queries` are said once, at the end.
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
from detrex.modeling.postprocess import SoftmaxPerQuery
from detrex.modeling.predictor import BoxPredictor
from detrex.modeling.queries import LearnedQueries
from detrex.modeling.query_pos import FixedPosition
from detrex.modeling.transformer import DetrTransformer, decoder_layer, encoder_layer

model = L(DETR)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=1,
    ),
    neck=L(ChannelMapper)(
        in_features=["res5"], out_channels="${..embed_dim}", kernel_size=1, num_outs=1
    ),
    position_embedding=L(sine_position_embedding)(
        embed_dim="${..embed_dim}", temperature=10000, normalize=True
    ),
    transformer=L(DetrTransformer)(
        encoder=L(Encoder)(
            layer=L(encoder_layer)(
                embed_dim="${....embed_dim}", num_heads=8, feedforward_dim=2048, dropout=0.1
            ),
            num_layers=6,
        ),
        queries=L(LearnedQueries)(num_queries="${...num_queries}", embed_dim="${...embed_dim}"),
        groups=L("builtins.dict")(),
        decoder=L(Decoder)(
            layer=L(decoder_layer)(
                embed_dim="${....embed_dim}", num_heads=8, feedforward_dim=2048, dropout=0.1
            ),
            num_layers=6,
            query_pos=L(FixedPosition)(),
            predictor=L(BoxPredictor)(
                num_layers="${..num_layers}",
                class_embed=L(ClassHead)(
                    embed_dim="${.....embed_dim}", num_classes="${.....num_classes}", no_object=True
                ),
                bbox_embed=L(BoxHead)(embed_dim="${.....embed_dim}", zero_init=False),
                norm=L(nn.LayerNorm)(normalized_shape="${.....embed_dim}"),
                share_heads=True,
            ),
        ),
    ),
    criterion=L(SetCriterion)(
        num_classes="${..num_classes}",
        matcher=L(HungarianMatcher)(
            cost_class=1.0, cost_bbox=5.0, cost_giou=2.0, cost_class_type="ce_cost"
        ),
        weight_dict={"loss_class": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0},
        loss_class_type="ce_loss",
        eos_coef=0.1,
    ),
    postprocess=L(SoftmaxPerQuery)(),
    aux_loss=True,
    pixel_mean=None,  # as the backbone's weights expect
    pixel_std=None,
    embed_dim=256,
    num_classes=80,
    num_queries=100,
)
