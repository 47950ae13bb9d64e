"""DN-DETR-DC5: res5 keeps the resolution of res4 and dilates instead."""

from ...detr.models.detr_r50_dc5 import model as dc5
from .dn_detr_r50 import model

model.backbone = dc5.backbone
