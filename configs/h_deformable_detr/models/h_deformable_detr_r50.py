"""H-Deformable-DETR: Deformable-DETR with 1,500 queries more that train on repeated objects."""

from detectron2.config import LazyCall as L

from detrex.modeling.query_groups import OneToMany

from ...deformable_detr.models.deformable_detr_r50 import model

model.transformer.queries.num_queries = 1800
model.transformer.groups.one_to_many = L(OneToMany)(num_queries="${....num_queries}", repeats=6)
model.transformer.encoder.layer.update(feedforward_dim=2048, dropout=0.0)
model.transformer.decoder.layer.update(feedforward_dim=2048, dropout=0.0)
model.criterion.weight_dict.loss_class = 2.0
