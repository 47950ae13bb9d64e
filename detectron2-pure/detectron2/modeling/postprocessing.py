"""From the network's input size to that of the original image."""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import Tensor

__all__ = ["detector_postprocess", "sem_seg_postprocess"]


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Resize predictions to an image of another size.

    Args:
        results: predictions with ``pred_boxes`` (or ``proposal_boxes``) in the pixels of
            ``results.image_size``; also resized are ``pred_masks`` (N, 1, M, M) or ``ROIMasks``,
            which are pasted to (N, output_height, output_width), and ``pred_keypoints``
            (N, K, 3). It is not modified.
        output_height: of the wanted image.
        output_width: of the wanted image.
        mask_threshold: pixels of at least this value belong to a mask.

    Returns:
        New instances, clipped to the image, without those whose box became empty.
    """
    height, width = int(output_height), int(output_width)
    scale_x, scale_y = width / results.image_size[1], height / results.image_size[0]
    output = Instances((height, width), **results.get_fields())
    name = next((n for n in ("pred_boxes", "proposal_boxes") if output.has(n)), None)
    if name is None:
        raise AssertionError("Predictions must contain boxes!")
    boxes: Boxes = output.get(name).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip(output.image_size)
    output.set(name, boxes)
    output = output[boxes.nonempty()]
    if output.has("pred_masks"):
        masks = output.pred_masks
        regions = masks if isinstance(masks, ROIMasks) else ROIMasks(masks[:, 0])
        output.pred_masks = regions.to_bitmasks(
            output.get(name), height, width, mask_threshold
        ).tensor
    if output.has("pred_keypoints"):
        keypoints = output.pred_keypoints.clone()
        keypoints[..., 0] *= scale_x
        keypoints[..., 1] *= scale_y
        output.pred_keypoints = keypoints
    return output


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Remove the padding of a score map and resize it.

    Args:
        result: (C, H, W).
        img_size: (height, width) of the image without its padding.
        output_height: of the wanted map.
        output_width: of the wanted map.

    Returns:
        (C, output_height, output_width).
    """
    unpadded = result[None, :, : img_size[0], : img_size[1]]
    size = (output_height, output_width)
    return F.interpolate(unpadded, size=size, mode="bilinear", align_corners=False)[0]
