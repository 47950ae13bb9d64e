"""Plain transformers by timm with a simple feature pyramid on top (ViTDet, arXiv:2203.16527).

    from ..common.backbones.vit import dinov3_small

    model.backbone = dinov3_small
    train.init_checkpoint = ""  # the backbone brings its own weights

Their layers learn the slower the deeper they are (`common/detr_adamw.py`). All blocks attend to
the whole image, which may have any aspect ratio; `grad_checkpointing=True` saves memory.

The weights: ViT by MAE (arXiv:2111.06377); DINOv2 (arXiv:2304.07193), whose patches of 14 pixels
make strides of 7, 14 and 28; DINOv3 (arXiv:2508.10104), under a license of its own; EVA-02
(arXiv:2303.11331), whose patches of 14 pixels are resampled to 16 as its authors do for detection.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone


def _vit(model_name: str, drop_path_rate: float, patch_size: int = 16):
    return L(TimmBackbone)(
        model_name=model_name,
        pretrained=True,
        out_strides=(patch_size // 2, patch_size, 2 * patch_size),
        drop_path_rate=drop_path_rate,
    )


vit_base_mae = _vit("vit_base_patch16_224.mae", 0.1)
vit_large_mae = _vit("vit_large_patch16_224.mae", 0.4)
dinov2_small = _vit("vit_small_patch14_reg4_dinov2.lvd142m", 0.1, patch_size=14)
dinov2_base = _vit("vit_base_patch14_reg4_dinov2.lvd142m", 0.1, patch_size=14)
dinov2_large = _vit("vit_large_patch14_reg4_dinov2.lvd142m", 0.4, patch_size=14)
dinov3_small = _vit("vit_small_patch16_dinov3.lvd1689m", 0.1)
dinov3_base = _vit("vit_base_patch16_dinov3.lvd1689m", 0.1)
dinov3_large = _vit("vit_large_patch16_dinov3.lvd1689m", 0.4)
eva02_small = _vit("eva02_small_patch14_224.mim_in22k", 0.1)
eva02_base = _vit("eva02_base_patch14_224.mim_in22k", 0.1)
eva02_large = _vit("eva02_large_patch14_224.mim_m38m", 0.4)
for _node in (eva02_small, eva02_base, eva02_large):
    _node.patch_size = 16
