"""DN-DETR: DAB-DETR that also learns to recover targets from noisy ones."""

from detectron2.config import LazyCall as L

from detrex.modeling.query_groups import Denoising

from ...dab_detr.models.dab_detr_r50 import model

model.transformer.queries.uniform_centers = False
model.transformer.groups.denoising = L(Denoising)(
    num_classes="${....num_classes}",
    embed_dim="${....embed_dim}",
    num_groups=5,
    label_noise=0.2,
    box_noise=0.4,
)
