"""Two-stage DAB-Deformable-DETR: the encoder's best tokens become the anchor boxes."""

from detectron2.config import LazyCall as L

from detrex.modeling.heads import BoxHead, ClassHead
from detrex.modeling.queries import EncoderProposals

from .dab_deformable_detr_r50 import model

model.transformer.queries = L(EncoderProposals)(
    num_queries="${...num_queries}",
    embed_dim="${...embed_dim}",
    class_embed=L(ClassHead)(embed_dim="${....embed_dim}", num_classes="${....num_classes}"),
    bbox_embed=L(BoxHead)(embed_dim="${....embed_dim}"),
)
model.transformer.decoder.predictor.bbox_embed.size_bias = 0.0  # proposals have a size already
