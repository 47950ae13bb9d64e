"""DINO: proposals with learned contents, refined by look-forward-twice, and denoising queries."""

from detectron2.config import LazyCall as L
from torch import nn

from detrex.modeling.query_groups import ContrastiveDenoising

from ...dab_deformable_detr.models.dab_deformable_detr_r50_two_stage import model

model.num_queries = 900
model.transformer.queries.learned_content = True
model.transformer.decoder.predictor.update(
    look_forward_twice=True, norm=L(nn.LayerNorm)(normalized_shape="${.....embed_dim}")
)
model.transformer.decoder.query_pos.scaled = False
model.transformer.groups.denoising = L(ContrastiveDenoising)(
    num_classes="${....num_classes}",
    embed_dim="${....embed_dim}",
    num_pairs=100,
    label_noise=0.5,
    box_noise=1.0,
)
