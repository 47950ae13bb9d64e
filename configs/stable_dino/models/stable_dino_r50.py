"""Stable-DINO: DINO whose scores say how well boxes fit, and whose matching asks for both."""

from detrex.modeling.variants.stable_dino import (
    PositionModulatedMatcher,
    PositionSupervisedCriterion,
)

from ...dino.models.dino_r50 import model

model.criterion._target_ = PositionSupervisedCriterion
model.criterion.matcher._target_ = PositionModulatedMatcher
model.criterion.weight_dict.loss_class = 6.0
