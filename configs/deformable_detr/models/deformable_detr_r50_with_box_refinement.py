"""Deformable-DETR whose decoder layers each refine the boxes of the one before."""

from .deformable_detr_r50 import model

model.transformer.decoder.predictor.update(refine=True, share_heads=False)
