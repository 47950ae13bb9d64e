"""COCO's categories and key points.

Names and ids are COCO's. Colors are made here: hues in steps of the golden angle, so that
neighbors in the table differ.
"""

from __future__ import annotations

import colorsys
from typing import Any

__all__ = [
    "COCO_CATEGORIES",
    "COCO_PERSON_KEYPOINT_FLIP_MAP",
    "COCO_PERSON_KEYPOINT_NAMES",
    "KEYPOINT_CONNECTION_RULES",
]

_THINGS = """
1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat,
10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat,
18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack,
28 umbrella, 31 handbag, 32 tie, 33 suitcase, 34 frisbee, 35 skis, 36 snowboard,
37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, 42 surfboard,
43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl,
52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza,
60 donut, 61 cake, 62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet,
72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone, 78 microwave, 79 oven,
80 toaster, 81 sink, 82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear,
89 hair drier, 90 toothbrush
"""

_STUFF = """
92 banner, 93 blanket, 95 bridge, 100 cardboard, 107 counter, 109 curtain, 112 door-stuff,
118 floor-wood, 119 flower, 122 fruit, 125 gravel, 128 house, 130 light, 133 mirror-stuff,
138 net, 141 pillow, 144 platform, 145 playingfield, 147 railroad, 148 river, 149 road,
151 roof, 154 sand, 155 sea, 156 shelf, 159 snow, 161 stairs, 166 tent, 168 towel,
171 wall-brick, 175 wall-stone, 176 wall-tile, 177 wall-wood, 178 water-other,
180 window-blind, 181 window-other, 184 tree-merged, 185 fence-merged, 186 ceiling-merged,
187 sky-other-merged, 188 cabinet-merged, 189 table-merged, 190 floor-other-merged,
191 pavement-merged, 192 mountain-merged, 193 grass-merged, 194 dirt-merged,
195 paper-merged, 196 food-other-merged, 197 building-other-merged, 198 rock-merged,
199 wall-other-merged, 200 rug-merged
"""

_GOLDEN_ANGLE = 0.381966  # of a full turn


def _color(position: int) -> list[int]:
    """An RGB color for the category at a position of the table."""
    hue = (position * _GOLDEN_ANGLE) % 1.0
    value = (1.0, 0.8, 0.6)[position % 3]
    return [round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.85, value)]


def _parse(table: str, isthing: int, first: int) -> list[dict[str, Any]]:
    categories = []
    for position, entry in enumerate(table.replace("\n", " ").split(",")):
        category_id, name = entry.strip().split(" ", 1)
        color = _color(first + position)
        categories.append(
            {"color": color, "isthing": isthing, "id": int(category_id), "name": name}
        )
    return categories


COCO_CATEGORIES: list[dict[str, Any]] = _parse(_THINGS, 1, 0) + _parse(_STUFF, 0, 80)
"""The 80 things and 53 kinds of stuff of COCO panoptic, by id: color, isthing, id, name."""

COCO_PERSON_KEYPOINT_NAMES = (
    "nose",
    "left_eye", "right_eye",
    "left_ear", "right_ear",
    "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow",
    "left_wrist", "right_wrist",
    "left_hip", "right_hip",
    "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)  # fmt: skip

COCO_PERSON_KEYPOINT_FLIP_MAP = tuple(
    (name, name.replace("left", "right"))
    for name in COCO_PERSON_KEYPOINT_NAMES
    if name.startswith("left")
)
"""Names that change places in a mirrored image."""

_LINKS = (
    ("left_ear", "left_eye"), ("right_ear", "right_eye"),
    ("left_eye", "nose"), ("nose", "right_eye"),
    ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"),
    ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"),
    ("left_hip", "right_hip"),
    ("left_hip", "left_knee"), ("right_hip", "right_knee"),
    ("left_knee", "left_ankle"), ("right_knee", "right_ankle"),
)  # fmt: skip

KEYPOINT_CONNECTION_RULES = [(a, b, tuple(_color(i))) for i, (a, b) in enumerate(_LINKS)]
"""Pairs of key points to join in drawings, with a color."""


def _get_coco_instances_meta() -> dict[str, Any]:
    """Metadata of COCO's 80 things."""
    things = [c for c in COCO_CATEGORIES if c["isthing"]]
    return {
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(things)},
        "thing_classes": [c["name"] for c in things],
        "thing_colors": [c["color"] for c in things],
    }


def _get_coco_panoptic_separated_meta() -> dict[str, Any]:
    """Metadata for things as instances and stuff as semantic segmentation.

    There the label 0 stands for all things and the 53 kinds of stuff follow.
    """
    stuff = [c for c in COCO_CATEGORIES if not c["isthing"]]
    names = [c["name"].replace("-other", "").replace("-merged", "") for c in stuff]
    return {
        "stuff_dataset_id_to_contiguous_id": {
            0: 0,
            **{c["id"]: i + 1 for i, c in enumerate(stuff)},
        },
        "stuff_classes": ["things", *names],
        "stuff_colors": [[82, 18, 128], *(c["color"] for c in stuff)],
        **_get_coco_instances_meta(),
    }


def _get_coco_panoptic_meta() -> dict[str, Any]:
    """Metadata for one numbering of things and stuff, things first."""
    names = [c["name"] for c in COCO_CATEGORIES]
    colors = [c["color"] for c in COCO_CATEGORIES]
    ids = {c["id"]: i for i, c in enumerate(COCO_CATEGORIES)}
    things = {c["id"] for c in COCO_CATEGORIES if c["isthing"]}
    return {
        "thing_classes": names,
        "thing_colors": colors,
        "stuff_classes": names,
        "stuff_colors": colors,
        "thing_dataset_id_to_contiguous_id": {c: i for c, i in ids.items() if c in things},
        "stuff_dataset_id_to_contiguous_id": {c: i for c, i in ids.items() if c not in things},
    }


def _get_builtin_metadata(dataset_name: str) -> dict[str, Any]:
    """Metadata by family: coco, coco_panoptic_separated, coco_panoptic_standard, coco_person.

    Raises:
        KeyError: another name.
    """
    if dataset_name == "coco":
        return _get_coco_instances_meta()
    if dataset_name == "coco_panoptic_separated":
        return _get_coco_panoptic_separated_meta()
    if dataset_name == "coco_panoptic_standard":
        return _get_coco_panoptic_meta()
    if dataset_name == "coco_person":
        return {
            "thing_classes": ["person"],
            "keypoint_names": COCO_PERSON_KEYPOINT_NAMES,
            "keypoint_flip_map": COCO_PERSON_KEYPOINT_FLIP_MAP,
            "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES,
        }
    raise KeyError(f"No built-in metadata for dataset {dataset_name}")
