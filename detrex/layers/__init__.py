"""Building blocks that need torch alone."""

from detrex.layers.attention import (
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    MultiheadAttention,
)
from detrex.layers.box_ops import (
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    masks_to_boxes,
)
from detrex.layers.checkpointing import checkpointed
from detrex.layers.conv import ConvNorm, ConvNormAct
from detrex.layers.denoising import (
    GenerateCDNQueries,
    GenerateDNQueries,
    apply_box_noise,
    apply_label_noise,
)
from detrex.layers.mlp import FFN, MLP
from detrex.layers.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    multi_scale_deformable_attn_pytorch,
)
from detrex.layers.norm import LayerNorm
from detrex.layers.position_embedding import (
    PositionEmbeddingLearned,
    PositionEmbeddingSine,
    get_sine_pos_embed,
    sine_position_embedding,
)
from detrex.layers.transformer import BaseTransformerLayer, TransformerLayerSequence

__all__ = [
    "FFN",
    "MLP",
    "BaseTransformerLayer",
    "ConditionalCrossAttention",
    "ConditionalSelfAttention",
    "ConvNorm",
    "ConvNormAct",
    "GenerateCDNQueries",
    "GenerateDNQueries",
    "LayerNorm",
    "MultiScaleDeformableAttention",
    "MultiheadAttention",
    "PositionEmbeddingLearned",
    "PositionEmbeddingSine",
    "TransformerLayerSequence",
    "apply_box_noise",
    "apply_label_noise",
    "box_cxcywh_to_xyxy",
    "box_iou",
    "box_xyxy_to_cxcywh",
    "checkpointed",
    "generalized_box_iou",
    "get_sine_pos_embed",
    "masks_to_boxes",
    "multi_scale_deformable_attn_pytorch",
    "sine_position_embedding",
]
