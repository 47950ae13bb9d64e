"""Keypoints."""

import numpy as np
import pytest
import torch
from detectron2.structures import Keypoints, heatmaps_to_keypoints
from torch.testing import assert_close


def test_basics():
    points = Keypoints(np.arange(18).reshape(2, 3, 3))
    assert points.tensor.dtype == torch.float32
    assert len(points) == 2
    assert_close(points[1].tensor, points.tensor[1:])
    assert_close(points[torch.tensor([False, True])].tensor, points.tensor[1:])
    assert len(Keypoints.cat([points, points])) == 4
    assert repr(points) == "Keypoints(num_instances=2)"
    with pytest.raises(AssertionError, match=r"\(N, K, 3\)"):
        Keypoints(torch.zeros(2, 3))


def test_to_heatmap():
    # A box of 10 x 20 pixels at (10, 20) under 5 x 5 cells: each is 2 wide and 4 high.
    points = [[10, 20, 2], [13, 39, 2], [20, 40, 1], [13, 39, 0], [9, 30, 2], [15, 41, 2]]
    cells, valid = Keypoints([points]).to_heatmap(torch.tensor([[10.0, 20, 20, 40]]), 5)
    assert valid.tolist() == [[1, 1, 1, 0, 0, 0]]
    # Row by row; the lower right corner of the box lies in the last cell.
    assert cells.tolist() == [[0, 4 * 5 + 1, 24, 0, 0, 0]]
    nothing = Keypoints(torch.zeros(0, 3, 3)).to_heatmap(torch.zeros(0, 4), 5)
    assert nothing[0].shape == nothing[1].shape == (0, 3)


def test_heatmaps_to_keypoints():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 2] = 10.0
    # The box has twice the size of the map, so cell (1, 2) spans x 4..6 and y 2..4.
    found = heatmaps_to_keypoints(maps, torch.tensor([[100.0, 50, 108, 58]]))
    assert found.shape == (1, 1, 4)
    x, y, score, probability = found[0, 0].tolist()
    assert 104 <= x <= 106
    assert 52 <= y <= 54
    assert score > 5
    assert 0 < probability <= 1
    same = heatmaps_to_keypoints(maps, torch.tensor([[0.0, 0, 4, 4]]))
    probability = torch.exp(torch.tensor(10.0)) / (torch.exp(torch.tensor(10.0)) + 15)
    assert_close(same[0, 0], torch.tensor([2.5, 1.5, 10.0, probability]))
    assert heatmaps_to_keypoints(torch.zeros(0, 2, 4, 4), torch.zeros(0, 4)).shape == (0, 2, 4)
