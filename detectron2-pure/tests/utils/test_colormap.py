import numpy as np
import pytest
from detectron2.utils.colormap import colormap, palette_color, random_color, random_colors


def test_colors():
    rgb, bgr = colormap(rgb=True, maximum=1), colormap()
    np.testing.assert_allclose(bgr[:, ::-1], rgb * 255, rtol=1e-6)
    assert rgb.min() >= 0 and rgb.max() == 1
    assert len({tuple(c) for c in rgb.tolist()}) == len(rgb)
    one = random_color(rgb=True, maximum=1)
    assert any((one == c).all() for c in rgb)
    many = random_colors(len(rgb) + 5)
    assert len(many) == len(rgb) + 5 and random_colors(0) == []
    assert len({tuple(c.tolist()) for c in many}) == len(rgb)
    with pytest.raises(AssertionError, match="255 or 1"):
        colormap(maximum=100)
    assert palette_color(1) == palette_color(len(rgb) + 1) == tuple(rgb[1].tolist())
