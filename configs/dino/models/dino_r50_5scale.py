"""DINO that also looks at the maps of stride 4."""

from .dino_r50 import model

model.backbone.out_features = ["res2", "res3", "res4", "res5"]
model.transformer.num_levels = 5
