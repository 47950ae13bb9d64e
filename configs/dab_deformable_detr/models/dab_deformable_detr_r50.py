"""DAB-Deformable-DETR: Deformable-DETR whose queries are anchor boxes, refined layer by layer."""

from detectron2.config import LazyCall as L

from detrex.modeling.queries import LearnedAnchors
from detrex.modeling.query_pos import AnchorPosition

from ...deformable_detr.models.deformable_detr_r50_with_box_refinement import model

model.transformer.queries = L(LearnedAnchors)(
    num_queries="${...num_queries}", embed_dim="${...embed_dim}"
)
model.transformer.decoder.query_pos = L(AnchorPosition)(embed_dim="${....embed_dim}", scaled=True)
model.transformer.encoder.layer.update(feedforward_dim=2048, dropout=0.0)
model.transformer.decoder.layer.update(feedforward_dim=2048, dropout=0.0)
