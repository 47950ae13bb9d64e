"""DN-Deformable-DETR: DAB-Deformable-DETR that trains on noisy objects as well."""

from detectron2.config import LazyCall as L

from detrex.modeling.query_groups import Denoising

from ...dab_deformable_detr.models.dab_deformable_detr_r50 import model

model.transformer.queries.indicator = True
model.transformer.groups.denoising = L(Denoising)(
    num_classes="${....num_classes}",
    embed_dim="${....embed_dim}",
    num_groups=5,
    label_noise=0.2,
    box_noise=0.4,
    unknown_label=False,
)
