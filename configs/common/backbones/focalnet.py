"""FocalNets (arXiv:2203.11926) by timm, with a norm per level as detectors on them have it.

    from ..common.backbones.focalnet import focalnet_tiny

    model.backbone = focalnet_tiny
    train.init_checkpoint = ""  # the backbone brings its own weights

`lrf` are those with a large receptive field. Those up to base were trained on ImageNet-1k, the
large ones on ImageNet-22k with images of 384 x 384 and three or four focal levels (fl3, fl4).
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone


def _focalnet(model_name: str, drop_path_rate: float):
    return L(TimmBackbone)(
        model_name=model_name,
        pretrained=True,
        out_strides=(8, 16, 32),
        level_norm=True,
        drop_path_rate=drop_path_rate,
    )


focalnet_tiny = _focalnet("focalnet_tiny_lrf.ms_in1k", 0.1)
focalnet_small = _focalnet("focalnet_small_lrf.ms_in1k", 0.1)
focalnet_base = _focalnet("focalnet_base_lrf.ms_in1k", 0.1)
focalnet_large_fl3 = _focalnet("focalnet_large_fl3.ms_in22k", 0.3)
focalnet_large_fl4 = _focalnet("focalnet_large_fl4.ms_in22k", 0.3)
