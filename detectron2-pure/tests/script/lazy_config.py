"""A config as public projects have it; the environment variable TOY_ROOT says where its data is."""

import os

import detectron2.data.transforms as T
import torch
import torch.nn.functional as F
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import FPN, BasicStem, ResNet, detector_postprocess
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.structures import Boxes, BoxMode, ImageList, Instances
from torch import nn

root = os.environ["TOY_ROOT"]
register_coco_instances(f"toy_{root}", {}, f"{root}/annotations.json", root)


class OneBox(nn.Module):
    """Finds one box in each image, as XYWH in units of 40 pixels."""

    def __init__(self, backbone, pixel_mean, num_classes):
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.head = nn.Linear(16, 4)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean)[:, None, None], False)

    def forward(self, inputs):
        images = ImageList.from_tensors(
            [x["image"] - self.pixel_mean for x in inputs],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )
        boxes = self.head(self.backbone(images.tensor)["p6"].mean((2, 3))).sigmoid()
        if self.training:
            target = torch.stack([x["instances"].gt_boxes.tensor[0] for x in inputs])
            target = BoxMode.convert(target, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
            return {"loss_box": F.smooth_l1_loss(boxes, target / 40)}
        results = []
        for box, x, size in zip(boxes, inputs, images.image_sizes, strict=True):
            corners = BoxMode.convert(box[None] * 40, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
            found = Instances(size, pred_boxes=Boxes(corners))
            found.scores = torch.ones(1)
            found.pred_classes = torch.zeros(1, dtype=torch.long)
            found.pred_masks = torch.ones(1, 1, 28, 28)
            results.append({"instances": detector_postprocess(found, x["height"], x["width"])})
        return results


model = L(OneBox)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=1,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=16,
        top_block=L(LastLevelMaxPool)(),
    ),
    pixel_mean=model_zoo.get_config("common/data/constants.py").constants.imagenet_bgr256_mean,
    num_classes=80,
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = f"toy_{root}"
dataloader.test.dataset.names = (f"toy_{root}",)
dataloader.evaluator.dataset_name = f"toy_{root}"
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=(32, 40), sample_style="choice"),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.train.mapper.augmentations.insert(1, T.RandomBrightness(0.9, 1.1))
dataloader.test.mapper.augmentations[0].update(short_edge_length=32, max_size=64)
dataloader.train.total_batch_size = 2
dataloader.train.num_workers = dataloader.test.num_workers = 0

optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.params.lr_factor_func = lambda name: 0.1 if "backbone" in name else 1
lr_multiplier = model_zoo.get_config("common/coco_schedule.py").lr_multiplier_1x

train = model_zoo.get_config("common/train.py").train
train.output_dir = f"{root}/" + os.path.basename(__file__)[:-3]
train["max_iter"] = 2
train.eval_period = train.checkpointer.period = 2
