"""Building blocks that need torch alone."""

from .attention import ConditionalCrossAttention, ConditionalSelfAttention, MultiheadAttention
from .box_ops import (
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    masks_to_boxes,
)
from .conv import ConvNorm, ConvNormAct
from .mlp import FFN, MLP
from .multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    multi_scale_deformable_attn_pytorch,
)
from .norm import LayerNorm
from .position_embedding import (
    PositionEmbeddingLearned,
    PositionEmbeddingSine,
    get_sine_pos_embed,
    sine_position_embedding,
)
from .transformer import BaseTransformerLayer, TransformerLayerSequence

__all__ = [
    "FFN",
    "MLP",
    "BaseTransformerLayer",
    "ConditionalCrossAttention",
    "ConditionalSelfAttention",
    "ConvNorm",
    "ConvNormAct",
    "LayerNorm",
    "MultiScaleDeformableAttention",
    "MultiheadAttention",
    "PositionEmbeddingLearned",
    "PositionEmbeddingSine",
    "TransformerLayerSequence",
    "box_cxcywh_to_xyxy",
    "box_iou",
    "box_xyxy_to_cxcywh",
    "generalized_box_iou",
    "get_sine_pos_embed",
    "masks_to_boxes",
    "multi_scale_deformable_attn_pytorch",
    "sine_position_embedding",
]
