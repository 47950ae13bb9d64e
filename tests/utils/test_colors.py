from __future__ import annotations

from detrex.utils.colors import class_color, class_colors


def test_twenty_classes_have_colors_of_their_own():
    assert len({class_color(i) for i in range(20)}) == 20
    assert class_color(20) == class_color(0)


def test_colors_as_detectron2_has_them():
    colors = class_colors(3)
    assert len(colors) == 3
    assert colors[2] == [round(255 * part) for part in class_color(2)[:3]]
