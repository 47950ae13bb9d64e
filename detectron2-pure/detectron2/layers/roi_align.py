"""ROIAlign as a module."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import roi_align

__all__ = ["ROIAlign", "roi_align"]


class ROIAlign(nn.Module):
    """Average feature maps over boxes (Mask R-CNN, arXiv:1703.06870).

    Args:
        output_size: (height, width) of the result.
        spatial_scale: factor from the coordinates of the boxes to those of the maps.
        sampling_ratio: samples per side of an output cell; 0: as many as cover it densely.
        aligned: take pixel (i, j) to lie at (i + 0.5, j + 0.5). The older convention, False,
            is half a pixel off.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool.

        Args:
            input: (B, C, H, W).
            rois: (N, 5), the number of the image and the box as XYXY.

        Returns:
            (N, C, height, width).
        """
        if rois.dim() != 2 or rois.shape[1] != 5:
            raise AssertionError(f"ROIAlign takes rois (N, 5), not {list(rois.shape)}.")
        return roi_align(
            input,
            rois.to(dtype=input.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
