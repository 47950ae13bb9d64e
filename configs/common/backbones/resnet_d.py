"""ResNet-D (arXiv:1812.01187) by timm: three 3x3 convolutions at the start, averaging shortcuts.

    from ..common.backbones.resnet_d import resnet50d

    model.backbone = resnet50d
    train.init_checkpoint = ""  # the backbone brings its own weights

Batch norms are constant and the stem is frozen, as in the family's ResNets.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone


def _resnet_d(model_name: str):
    return L(TimmBackbone)(
        model_name=model_name,
        pretrained=True,
        out_strides=(8, 16, 32),
        freeze_at=1,
        freeze_norm=True,
    )


resnet50d = _resnet_d("resnet50d.ra2_in1k")
resnet101d = _resnet_d("resnet101d.ra2_in1k")
resnet152d = _resnet_d("resnet152d.ra2_in1k")
