"""Two-stage Deformable-DETR: the encoder proposes the boxes that the decoder refines."""

from detectron2.config import LazyCall as L

from detrex.modeling.heads import BoxHead, ClassHead
from detrex.modeling.queries import BoxEncodedProposals

from .deformable_detr_r50_with_box_refinement import model

model.transformer.queries = L(BoxEncodedProposals)(
    num_queries="${...num_queries}",
    embed_dim="${...embed_dim}",
    class_embed=L(ClassHead)(embed_dim="${....embed_dim}", num_classes="${....num_classes}"),
    bbox_embed=L(BoxHead)(embed_dim="${....embed_dim}"),
)
model.transformer.decoder.predictor.bbox_embed.size_bias = 0.0  # proposals have a size already
