"""DAB-DETR that tries each anchor box with three learned contents."""

from .dab_detr_r50 import model

model.transformer.queries.num_patterns = 3
