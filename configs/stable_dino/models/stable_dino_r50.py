"""Stable-DINO: DINO whose scores say how well boxes fit, and whose matching asks for both."""

from detectron2.config import LazyCall as L

from detrex.modeling.variants.stable_dino import PositionModulatedCost, PositionSupervisedLoss

from ...dino.models.dino_r50 import model

model.criterion.class_loss = L(PositionSupervisedLoss)(alpha="${..alpha}", gamma="${..gamma}")
model.criterion.matcher.class_cost = L(PositionModulatedCost)(
    alpha="${..alpha}", gamma="${..gamma}"
)
model.criterion.weight_dict.loss_class = 6.0
