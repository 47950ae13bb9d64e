"""DAB-DETR: Conditional-DETR whose queries are anchor boxes, refined layer by layer."""

from detectron2.config import LazyCall as L
from torch import nn

from detrex.layers import MLP
from detrex.modeling.queries import LearnedAnchors

from ...conditional_detr.models.conditional_detr_r50 import model

model.position_embedding.temperature = 20
model.transformer.queries = L(LearnedAnchors)(
    num_queries="${...num_queries}",
    embed_dim="${...embed_dim}",
    learned_content=False,
    uniform_centers=True,
)
model.transformer.encoder.pos_scale = L(MLP)(
    input_dim="${....embed_dim}",
    hidden_dim="${....embed_dim}",
    output_dim="${....embed_dim}",
    num_layers=2,
)
model.transformer.decoder.query_pos.modulated = True
model.transformer.decoder.predictor.update(refine=True, look_forward_twice=True)
for part in (model.transformer.encoder, model.transformer.decoder):
    part.layer.update(dropout=0.0, activation=L(nn.PReLU)())
model.criterion.weight_dict.loss_class = 1.0
