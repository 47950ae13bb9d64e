"""Group-DETR: Conditional-DETR that trains eleven groups of queries and keeps the first."""

from detectron2.config import LazyCall as L

from detrex.modeling.query_groups import GroupCopies

from ...conditional_detr.models.conditional_detr_r50 import model

model.transformer.groups.copies = L(GroupCopies)(num_queries="${....num_queries}", num_groups=11)
model.transformer.queries.num_groups = "${..groups.copies.num_groups}"
