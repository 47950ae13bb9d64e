"""Swin Transformers (arXiv:2103.14030) by timm, with a norm per level as detectors on them have it.

    from ..common.backbones.swin import swin_tiny

    model.backbone = swin_tiny
    train.init_checkpoint = ""  # the backbone brings its own weights

The weights are of ImageNet-1k, of ImageNet-22k (`22k`), or of both in turn (`22kto1k`). Windows of
7 were trained on images of 224 x 224, windows of 12 on 384 x 384. `always_partition` keeps that
size where a feature map is smaller than a window, as in the published detectors.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone


def _swin(model_name: str, drop_path_rate: float):
    return L(TimmBackbone)(
        model_name=model_name,
        pretrained=True,
        out_strides=(8, 16, 32),
        level_norm=True,
        drop_path_rate=drop_path_rate,
        always_partition=True,
    )


swin_tiny = _swin("swin_tiny_patch4_window7_224.ms_in1k", 0.1)
swin_tiny_22kto1k = _swin("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", 0.1)
swin_small = _swin("swin_small_patch4_window7_224.ms_in1k", 0.2)
swin_base_22k = _swin("swin_base_patch4_window7_224.ms_in22k", 0.4)
swin_base_384_22kto1k = _swin("swin_base_patch4_window12_384.ms_in22k_ft_in1k", 0.2)
swin_large_22k = _swin("swin_large_patch4_window7_224.ms_in22k", 0.2)
swin_large_22kto1k = _swin("swin_large_patch4_window7_224.ms_in22k_ft_in1k", 0.2)
swin_large_384_22kto1k = _swin("swin_large_patch4_window12_384.ms_in22k_ft_in1k", 0.2)
