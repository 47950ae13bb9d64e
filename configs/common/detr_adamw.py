"""AdamW as the DETR family is trained with it, whatever its backbone.

The backbone learns at a tenth of the rate; a plain transformer with layer-wise decay instead. What
the detector adds to the pretrained network learns at the full rate (`detrex.optim.RateFactors`).
"""

from detectron2.config import LazyCall as L

from detrex.optim import RateFactors

from .optim import AdamW as optimizer

optimizer.lr = 1e-4
optimizer.weight_decay = 1e-4
optimizer.params.lr_factor_func = L(RateFactors)(
    model="${oc.select:..model,null}",  # that of `params`, once there is one
    backbone=0.1,
    layer_decay="auto",
)
# Positions and tokens of transformers are no weights that a decay should pull to zero.
optimizer.params.overrides = {
    name: {"weight_decay": 0.0} for name in ("pos_embed", "cls_token", "reg_token")
}
