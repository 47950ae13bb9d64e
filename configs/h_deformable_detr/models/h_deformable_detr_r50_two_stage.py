"""Two-stage H-Deformable-DETR: the position of a query is a proposal's, its content is learned."""

from detectron2.config import LazyCall as L

from detrex.modeling.query_groups import OneToMany

from ...deformable_detr.models.deformable_detr_r50_two_stage import model

model.transformer.queries.update(num_queries=1800, learned_content=True)
model.transformer.groups.one_to_many = L(OneToMany)(num_queries="${....num_queries}", repeats=6)
model.transformer.encoder.layer.update(feedforward_dim=2048, dropout=0.0)
model.transformer.decoder.layer.update(feedforward_dim=2048, dropout=0.0)
model.transformer.decoder.predictor.look_forward_twice = True
model.criterion.weight_dict.loss_class = 2.0
