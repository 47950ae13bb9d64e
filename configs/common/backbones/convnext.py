"""ConvNeXts (arXiv:2201.03545) by timm, with a norm per level as detectors on them have it.

    from ..common.backbones.convnext import convnext_tiny_384

    model.backbone = convnext_tiny_384
    train.init_checkpoint = ""  # the backbone brings its own weights

Trained on ImageNet-22k, then on ImageNet-1k with images of 384 x 384; those by DINOv3
(arXiv:2508.10104) without labels, under a license of their own.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone


def _convnext(model_name: str):
    return L(TimmBackbone)(
        model_name=model_name,
        pretrained=True,
        out_strides=(8, 16, 32),
        level_norm=True,
        drop_path_rate=0.0,
    )


convnext_tiny_384 = _convnext("convnext_tiny.fb_in22k_ft_in1k_384")
convnext_small_384 = _convnext("convnext_small.fb_in22k_ft_in1k_384")
convnext_base_384 = _convnext("convnext_base.fb_in22k_ft_in1k_384")
convnext_large_384 = _convnext("convnext_large.fb_in22k_ft_in1k_384")
convnext_tiny_dinov3 = _convnext("convnext_tiny.dinov3_lvd1689m")
convnext_large_dinov3 = _convnext("convnext_large.dinov3_lvd1689m")
