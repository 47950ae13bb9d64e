"""DETR-DC5: res5 keeps the resolution of res4 and dilates instead, as the official DETR does."""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import make_stage

from .detr_r50 import model

model.backbone.stages = L(make_stage)(
    depth=50,
    stride_in_1x1=False,
    norm="FrozenBN",
    res5_dilation=2,
    res5_first_dilation=1,  # the first block of res5 undilated: torchvision's convention
)
model.backbone.freeze_at = 2
