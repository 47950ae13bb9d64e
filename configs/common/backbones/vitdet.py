"""ViTDet (arXiv:2203.16527): plain transformers that attend within windows in most blocks.

    from ..common.backbones.vitdet import mae_base, vitdet_base

    model.backbone = vitdet_base
    train.init_checkpoint = mae_base
    train.allow_partial_backbone = True  # relative positions and the pyramid are new

The weights are by MAE (arXiv:2111.06377). Images may have any size and aspect ratio.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import ViTDet

vitdet_base = L(ViTDet)(model_name="samvit_base_patch16", drop_path_rate=0.1)
vitdet_large = L(ViTDet)(model_name="samvit_large_patch16", drop_path_rate=0.4)

mae_base = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth"
mae_large = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_large.pth"
