"""Conditional-DETR: DETR whose cross-attention compares content and position apart.

The position of a query is that of a learned reference point; classes are trained by focal loss.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.decoder import ConditionalDecoder
from detrex.modeling.postprocess import TopKSigmoid
from detrex.modeling.query_pos import ConditionalPosition
from detrex.modeling.transformer import conditional_decoder_layer

from ...detr.models.detr_r50 import model

model.num_queries = 300
model.transformer.queries.update(anchored=True, anchor_layers=2)

decoder = model.transformer.decoder
decoder._target_ = ConditionalDecoder
decoder.layer._target_ = conditional_decoder_layer
decoder.query_pos = L(ConditionalPosition)(embed_dim="${....embed_dim}")
decoder.predictor.class_embed.no_object = False
decoder.predictor.bbox_embed.zero_init = True

model.criterion.update(loss_class_type="focal_loss", alpha=0.25, gamma=2.0)
model.criterion.weight_dict.loss_class = 2.0
model.criterion.matcher.update(
    cost_class=2.0, cost_class_type="focal_loss_cost", alpha=0.25, gamma=2.0
)
model.postprocess = L(TopKSigmoid)(num_boxes=300)
