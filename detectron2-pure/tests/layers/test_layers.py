"""Convolutions, wrappers, NMS, ROIAlign, mask pasting."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import (
    ASPP,
    CNNBlockBase,
    Conv2d,
    DeformConv,
    DepthwiseSeparableConv2d,
    FrozenBatchNorm2d,
    ModulatedDeformConv,
    ROIAlign,
    ShapeSpec,
    batched_nms,
    cat,
    ciou_loss,
    cross_entropy,
    diou_loss,
    get_norm,
    move_device_like,
    nms,
    nonzero_tuple,
    paste_masks_in_image,
    shapes_to_tensor,
)
from detectron2.layers.mask_ops import pad_masks, paste_mask_in_image_old, scale_boxes
from detectron2.structures import Boxes
from torch import nn
from torch.testing import assert_close

# Shapes and wrappers ----------------------------------------------------------------------


def test_shape_spec():
    assert ShapeSpec() == ShapeSpec(channels=None, height=None, width=None, stride=None)
    assert ShapeSpec(channels=3, stride=4) != ShapeSpec(channels=3)


def test_conv_with_norm_and_activation():
    conv = Conv2d(3, 4, 3, padding=1, bias=False, norm=get_norm("BN", 4), activation=F.relu)
    assert set(dict(conv.named_parameters())) == {"weight", "norm.weight", "norm.bias"}
    x = torch.randn(2, 3, 5, 5)
    conv.eval()
    assert_close(conv(x), F.relu(conv.norm(F.conv2d(x, conv.weight, padding=1))))
    assert conv(x[:0]).shape == (0, 4, 5, 5)
    plain = Conv2d(3, 4, 1)
    assert_close(plain(x), F.conv2d(x, plain.weight, plain.bias))


def test_cat():
    x = torch.ones(2, 3)
    assert cat([x]) is x
    assert cat((x, x), dim=1).shape == (2, 6)
    with pytest.raises(TypeError, match="list or tuple"):
        cat(x)


def test_cross_entropy_of_nothing_is_zero_with_a_gradient():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.shape == (0, 5)
    logits, target = torch.randn(4, 5), torch.tensor([0, 1, 2, 4])
    assert_close(cross_entropy(logits, target), F.cross_entropy(logits, target))
    summed = cross_entropy(logits, target, reduction="sum")
    assert_close(summed, F.cross_entropy(logits, target, reduction="sum"))


def test_small_functions():
    x = torch.tensor([[0, 1], [2, 0]])
    rows, columns = nonzero_tuple(x)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert nonzero_tuple(torch.tensor(5))[0].tolist() == [0]
    assert shapes_to_tensor([2, torch.tensor(3)]).tolist() == [2, 3]
    assert move_device_like(x, torch.zeros(1)) is x


# Blocks -----------------------------------------------------------------------------------


def test_freeze():
    class Block(CNNBlockBase):
        def __init__(self):
            super().__init__(3, 4, stride=2)
            self.conv = Conv2d(3, 4, 3, norm=get_norm("BN", 4))

    block = Block()
    assert (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    assert block.freeze() is block
    assert not any(p.requires_grad for p in block.parameters())
    assert isinstance(block.conv.norm, FrozenBatchNorm2d)


def test_depthwise_separable():
    block = DepthwiseSeparableConv2d(4, 6, norm1="BN", activation1=F.relu, norm2="BN").eval()
    assert block.depthwise.weight.shape == (4, 1, 3, 3)
    assert block.pointwise.weight.shape == (6, 4, 1, 1)
    assert block.depthwise.bias is None
    assert block(torch.randn(1, 4, 5, 5)).shape == (1, 6, 5, 5)


# Deformable convolutions ------------------------------------------------------------------


def test_deform_conv_without_offsets_is_a_convolution():
    torch.manual_seed(0)
    conv = DeformConv(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, deformable_groups=2)
    x = torch.randn(2, 4, 9, 9)
    plain = F.conv2d(x, conv.weight, stride=2, padding=2, dilation=2, groups=2)
    offset = torch.zeros(2, 2 * 2 * 9, *plain.shape[-2:])
    assert_close(conv(x, offset), plain, rtol=1e-4, atol=1e-5)
    assert list(conv.state_dict()) == ["weight"]
    with pytest.raises(AssertionError, match="no bias"):
        DeformConv(4, 6, 3, bias=True)


def test_deform_conv_offsets_are_vertical_then_horizontal():
    conv = DeformConv(1, 1, 1)
    nn.init.ones_(conv.weight)
    x = torch.arange(12.0).view(1, 1, 3, 4)
    down = torch.zeros(1, 2, 3, 4)
    down[:, 0] = 1
    assert_close(conv(x, down)[0, 0, :2], x[0, 0, 1:])
    right = torch.zeros(1, 2, 3, 4)
    right[:, 1] = 1
    assert_close(conv(x, right)[0, 0, :, :3], x[0, 0, :, 1:])


def test_modulated_deform_conv():
    torch.manual_seed(0)
    conv = ModulatedDeformConv(4, 6, 3, padding=1, norm=get_norm("BN", 6), activation=F.relu).eval()
    assert {"weight", "bias", "norm.weight"} <= set(conv.state_dict())
    nn.init.uniform_(conv.bias)
    x, offset = torch.randn(2, 4, 5, 5), torch.zeros(2, 18, 5, 5)
    full = conv(x, offset, torch.ones(2, 9, 5, 5))
    plain = F.conv2d(x, conv.weight, conv.bias, padding=1)
    assert_close(full, F.relu(conv.norm(plain)), rtol=1e-4, atol=1e-5)
    nothing = conv(x, offset, torch.zeros(2, 9, 5, 5))
    bias_only = conv.bias.view(1, -1, 1, 1).expand(2, 6, 5, 5)
    assert_close(nothing, F.relu(conv.norm(bias_only)), rtol=1e-4, atol=1e-5)
    assert "bias" not in ModulatedDeformConv(4, 6, 3, bias=False).state_dict()


# NMS and losses ---------------------------------------------------------------------------


def test_batched_nms_works_per_category():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert batched_nms(boxes, scores, torch.tensor([0, 0, 1]), 0.5).tolist() == [1, 2]
    assert nms(boxes, scores, 0.5).tolist() == [1]
    half = batched_nms(boxes.half() + 3000, scores, torch.tensor([0, 0, 1]), 0.5)
    assert half.tolist() == [1, 2]
    assert batched_nms(boxes[:0], scores[:0], torch.zeros(0), 0.5).tolist() == []


def test_iou_losses():
    boxes = torch.tensor([[0.0, 0, 2, 2]])
    # Same size, moved by 2 to the right: no overlap, centers 2 apart, enclosing box 4 x 2.
    moved = torch.tensor([[2.0, 0, 4, 2]])
    assert_close(diou_loss(boxes, moved), torch.tensor([1 + 4 / 20]))
    assert_close(ciou_loss(boxes, moved), torch.tensor([1 + 4 / 20]))
    assert_close(ciou_loss(boxes, boxes, reduction="sum"), torch.tensor(0.0), rtol=0, atol=1e-6)


# ROIAlign and masks -----------------------------------------------------------------------


def test_roi_align_takes_pixel_centers():
    # On a ramp the average over a box is the value in its middle; pixel i lies at i + 0.5.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    pooled = ROIAlign((1, 2), 1.0, 4)(ramp, torch.tensor([[0.0, 2, 2, 6, 6]]))
    assert_close(pooled, torch.tensor([[[[3 - 0.5, 5 - 0.5]]]]))
    old = ROIAlign((1, 2), 1.0, 4, aligned=False)(ramp, torch.tensor([[0.0, 2, 2, 6, 6]]))
    assert_close(old, torch.tensor([[[[3.0, 5.0]]]]))
    halved = ROIAlign((1, 2), 0.5, 4)(ramp, torch.tensor([[0.0, 4, 4, 12, 12]]))
    assert_close(halved, pooled)
    with pytest.raises(AssertionError, match=r"\(N, 5\)"):
        ROIAlign(2, 1.0, 0)(ramp, torch.zeros(1, 4))


def test_paste_fills_the_box():
    box = torch.tensor([[2.0, 1, 6, 4]])
    image = paste_masks_in_image(torch.ones(1, 14, 14), box, (8, 9))
    expected = torch.zeros(1, 8, 9, dtype=torch.bool)
    expected[0, 1:4, 2:6] = True
    assert_close(image, expected)
    assert_close(paste_masks_in_image(torch.ones(1, 14, 14).bool(), Boxes(box), (8, 9)), expected)


def test_paste_agrees_with_sampling_the_whole_image():
    torch.manual_seed(0)
    masks = torch.rand(3, 5, 5)
    boxes = torch.tensor([[-4.3, 2.2, 7.9, 25.0], [3.0, 3.0, 3.5, 9.0], [10.2, -8.0, 30.0, 4.4]])
    height, width = 12, 17
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        grid = torch.stack([(x - x0) / (x1 - x0), (y - y0) / (y1 - y0)], dim=-1) * 2 - 1
        whole = F.grid_sample(masks[None, i : i + 1], grid[None], align_corners=False)[0, 0]
        pasted = paste_masks_in_image(masks[i : i + 1], boxes[i : i + 1], (height, width), 0.4)
        assert_close(pasted[0], whole >= 0.4)
        values = paste_masks_in_image(masks[i : i + 1], boxes[i : i + 1], (height, width), -1)
        assert values.dtype == torch.uint8
        np.testing.assert_allclose(values[0].numpy(), (whole * 255).byte().numpy(), atol=1)


def test_paste_edge_cases():
    assert paste_masks_in_image(torch.zeros(0, 4, 4), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
    outside = torch.tensor([[50.0, 50, 60, 60], [-9, -9, -5, -5]])
    assert not paste_masks_in_image(torch.ones(2, 4, 4), outside, (5, 6)).any()
    with pytest.raises(AssertionError, match="1 masks, but 2 boxes"):
        paste_masks_in_image(torch.ones(1, 4, 4), outside, (5, 6))
    with pytest.raises(AssertionError, match=r"\(N, M, M\)"):
        paste_masks_in_image(torch.ones(1, 1, 4, 4), outside[:1], (5, 6))


def test_representations():
    sizes = "kernel_size=(3, 3), stride={0}, padding={0}, dilation={0}, groups=1, "
    tail = "deformable_groups=2, bias="
    assert repr(DeformConv(3, 10, kernel_size=3, padding=1, deformable_groups=2)) == (
        f"DeformConv(in_channels=3, out_channels=10, {sizes.format((1, 1))}{tail}False)"
    )
    # This one shows its sizes as they were given.
    assert repr(ModulatedDeformConv(3, 10, kernel_size=3, padding=1, deformable_groups=2)) == (
        f"ModulatedDeformConv(in_channels=3, out_channels=10, {sizes.format(1)}{tail}True)"
    )


def test_nms_takes_half_precision_scores():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9.5], [0, 0, 10, 10]]).half()
    scores, categories = torch.tensor([0.9, 0.8, 0.7]).half(), torch.tensor([0, 0, 1])
    assert batched_nms(boxes, scores, categories, 0.5).tolist() == [0, 2]


def test_torchscript():
    boxes, scores = torch.rand(20, 4).cumsum(1), torch.rand(20)
    categories = torch.arange(20) % 3
    scripted = torch.jit.script(batched_nms)(boxes, scores, categories, 0.5)
    assert_close(scripted, batched_nms(boxes, scores, categories, 0.5))
    conv = Conv2d(3, 4, 3, padding=1, norm=FrozenBatchNorm2d(4), activation=nn.ReLU())
    image = torch.rand(2, 3, 5, 5)
    assert_close(torch.jit.script(conv)(image), conv(image))


def test_masks_with_a_border():
    padded, scale = pad_masks(torch.ones(2, 4, 4), 1)
    assert padded.shape == (2, 6, 6) and scale == 1.5
    assert padded[:, 1:5, 1:5].all() and padded.sum() == 32
    boxes = scale_boxes(torch.tensor([[0.0, 2, 4, 10]]), 1.5)
    assert_close(boxes, torch.tensor([[-1.0, 0, 5, 12]]))


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([2.0, 1, 4, 3], slice(1, 4), slice(2, 5)),
        ([-3.0, -2, 2, 1], slice(0, 2), slice(0, 3)),
        ([4.0, 4, 9, 9], slice(4, 6), slice(4, 6)),
        ([7.0, 7, 9, 9], slice(0, 0), slice(0, 0)),
        ([-9.0, -9, -7, -7], slice(0, 0), slice(0, 0)),
    ],
)
def test_old_way_of_pasting_a_mask(box, rows, columns):
    expected = torch.zeros(6, 6, dtype=torch.uint8)
    expected[rows, columns] = 1
    assert_close(paste_mask_in_image_old(torch.ones(4, 4), torch.tensor(box), 6, 6, 0.5), expected)
    values = paste_mask_in_image_old(torch.ones(4, 4), torch.tensor(box), 6, 6, -1)
    assert_close(values, expected * 255, atol=1, rtol=0)


@pytest.mark.parametrize(
    "options", [{}, {"use_depthwise_separable_conv": True}, {"pool_kernel_size": (4, 8)}]
)
def test_aspp(options):
    torch.manual_seed(0)
    aspp = ASPP(3, 10, [1, 2, 3], norm="", activation=nn.PReLU(), dropout=0.5, **options)
    x = torch.rand(2, 3, 4, 8)
    assert aspp(x).shape == (2, 10, 4, 8)
    assert (aspp(x) == 0).float().mean() > 0.3
    aspp.eval()
    assert_close(aspp(x), aspp(x))
    # The constant part of the output comes from pooling alone.
    for conv in aspp.convs[:4]:
        for parameter in conv.parameters():
            nn.init.zeros_(parameter)
    assert_close(aspp(x), aspp(x)[:, :, :1, :1].expand(-1, -1, 4, 8))
    activations = [module for module in aspp.modules() if isinstance(module, nn.PReLU)]
    assert len(activations) == (9 if "use_depthwise_separable_conv" in options else 6)
    if "pool_kernel_size" in options:
        with pytest.raises(ValueError, match="does not divide"):
            aspp(x[:, :, :3])
    with pytest.raises(AssertionError, match="three dilations"):
        ASPP(3, 10, [1, 2], norm="", activation=nn.PReLU())


def test_aspp_norms_all_but_the_pooled_value():
    aspp = ASPP(3, 4, [1, 2, 3], norm="BN", activation=F.relu)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in aspp.modules()) == 5
    assert [name for name, _ in aspp.named_parameters() if name.endswith("1.bias")] == [
        "convs.4.1.bias"
    ]
