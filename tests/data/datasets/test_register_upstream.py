"""The data sets that are registered by the names of the public detrex, under a root made here."""

from __future__ import annotations

import ast
import importlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.evaluation import COCOPanopticEvaluator, SemSegEvaluator
from PIL import Image

import detrex.data
from detrex.data.dataset_mappers import (
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerSemanticDatasetMapper,
)
from detrex.data.datasets import (
    register_ade20k_full,
    register_ade20k_instance,
    register_ade20k_panoptic,
    register_ade20k_sem_seg,
    register_coco_panoptic_annos_semseg,
    register_coco_stuff_10k,
    register_mapillary_vistas,
    register_mapillary_vistas_panoptic,
    registration,
)

REGISTER = {
    register_ade20k_full: "register_all_ade20k_full",
    register_ade20k_instance: "register_all_ade20k_instance",
    register_ade20k_panoptic: "register_all_ade20k_panoptic",
    register_ade20k_sem_seg: "register_all_ade20k_sem_seg",
    register_coco_panoptic_annos_semseg: "register_all_coco_panoptic_annos_sem_seg",
    register_coco_stuff_10k: "register_all_coco_stuff_10k",
    register_mapillary_vistas: "register_all_mapillary_vistas",
    register_mapillary_vistas_panoptic: "register_all_mapillary_vistas_panoptic",
}

NAMES = {
    "ade20k_full_sem_seg_train",
    "ade20k_full_sem_seg_val",
    "ade20k_instance_train",
    "ade20k_instance_val",
    "ade20k_panoptic_train",
    "ade20k_panoptic_val",
    "ade20k_sem_seg_train",
    "ade20k_sem_seg_val",
    "coco_2017_train_panoptic_with_sem_seg",
    "coco_2017_val_100_panoptic_with_sem_seg",
    "coco_2017_val_panoptic_with_sem_seg",
    "coco_2017_test_stuff_10k_sem_seg",
    "coco_2017_train_stuff_10k_sem_seg",
    "mapillary_vistas_panoptic_train",
    "mapillary_vistas_panoptic_val",
    "mapillary_vistas_sem_seg_train",
    "mapillary_vistas_sem_seg_val",
}


def register_all(root):
    for module, function in REGISTER.items():
        getattr(module, function)(str(root))


@pytest.fixture
def root(tmp_path):
    """All data sets registered in an empty folder, and afterwards where they were."""
    register_all(tmp_path)
    yield tmp_path
    register_all(registration.datasets_root())


def draw(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)


def image(path):
    draw(path, np.zeros((4, 6, 3), dtype=np.uint8))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


LABELS = np.array([[0] * 6, [1] * 6, [2] * 6, [255] * 6], dtype=np.uint8)
CATEGORIES = [  # a thing after stuff, as ADE20K and Mapillary Vistas have them
    {"id": 7, "name": "bed", "isthing": 1, "color": [1, 2, 3]},
    {"id": 1, "name": "wall", "isthing": 0, "color": [4, 5, 6]},
    {"id": 9, "name": "sky", "isthing": 0, "color": [7, 8, 9]},
]


def write_panoptic(images, segments, labels, json_file, categories, image_id="a7"):
    image(images / "a.jpg")
    colors = np.zeros((4, 6, 3), dtype=np.uint8)
    colors[..., 0] = [[5] * 6, [6] * 6, [8] * 6, [0] * 6]
    draw(segments / "a.png", colors)
    draw(labels / "a.png", LABELS)
    first, second, third = (c["id"] for c in sorted(categories, key=lambda c: c["id"])[:3])
    infos = [
        {"id": i, "category_id": c, "iscrowd": 0, "bbox": [0, y, 6, 1], "area": 6}
        for y, (i, c) in enumerate(((5, first), (6, second), (8, third)))
    ]
    annotation = {"image_id": image_id, "file_name": "a.png", "segments_info": infos}
    write(json_file, {"annotations": [annotation], "categories": categories})


def write_ade_panoptic(root, split="val", folder="validation"):
    base = root / "ADEChallengeData2016"
    write_panoptic(
        base / "images" / folder,
        base / f"ade20k_panoptic_{split}",
        base / "annotations_detectron2" / folder,
        base / f"ade20k_panoptic_{split}.json",
        CATEGORIES,
    )


def test_importing_registers_the_names():
    assert DatasetCatalog.keys() >= NAMES


def test_nothing_else_imports_what_registers():
    """So that ``import detrex.data`` stays light, and the core free of names for projects."""
    folder = Path(detrex.data.__file__).parents[1]
    edge = [folder / "data" / name for name in ("dataset_mappers", "datasets", "transforms")]
    files = [f for f in folder.rglob("*.py") if not any(e in f.parents for e in edge)]
    assert len(files) > 50
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            lines = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            assert not re.search(r"detrex\.data(\.| import .*)(dataset_mappers|datasets)", lines), (
                file
            )


def test_registering_again_changes_nothing(root):
    metadata = {name: MetadataCatalog.get(name) for name in NAMES}
    register_all(root)
    assert all(MetadataCatalog.get(name) is metadata[name] for name in NAMES)
    for module in REGISTER:
        importlib.reload(module)  # registers under the default root, as importing does


def test_another_root_takes_the_place(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    register_all(other)
    for name in NAMES:
        assert MetadataCatalog.get(name).image_root.startswith(str(other))


def test_names_of_other_code_stay(root):
    DatasetCatalog.remove("ade20k_panoptic_val")
    # As if somebody else had registered it before this was imported.
    facts = registration._REGISTERED.pop("ade20k_panoptic_val")
    DatasetCatalog.register("ade20k_panoptic_val", list)
    register_all(root)
    assert DatasetCatalog.get("ade20k_panoptic_val") == []
    registration._REGISTERED["ade20k_panoptic_val"] = facts


def test_what_was_known_before_stays_known(root):
    MetadataCatalog.get("asked_for_early").extra = 3
    registration.register_dataset("asked_for_early", list, ignore_label=7)
    metadata = MetadataCatalog.get("asked_for_early")
    assert (metadata.extra, metadata.ignore_label, metadata.name) == (3, 7, "asked_for_early")
    DatasetCatalog.remove("asked_for_early")
    MetadataCatalog.remove("asked_for_early")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_what_is_known_without_files(root, name):
    metadata = MetadataCatalog.get(name)
    assert metadata.image_root.startswith(str(root))
    if name.startswith("ade20k_instance"):
        assert metadata.evaluator_type == "coco"
        return
    ignored = 65 if "mapillary" in name else 65535 if "full" in name else 255
    assert metadata.ignore_label == ignored
    assert metadata.sem_seg_root.startswith(str(root))
    kind = name.split("_panoptic")[0].replace("_2017_train", "").replace("_2017_val_100", "")
    kind = f"{kind.replace('_2017_val', '')}_panoptic_seg" if "panoptic" in name else "sem_seg"
    assert metadata.evaluator_type == kind
    if "panoptic" in name:
        assert metadata.label_divisor == 1000
        assert metadata.panoptic_json.startswith(str(root))
        assert metadata.panoptic_root.startswith(str(root))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_missing_file_is_named(root, name):
    with pytest.raises(FileNotFoundError, match=str(root)):
        DatasetCatalog.get(name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ade20k_sem_seg_train", "objectInfo150.txt"),
        ("ade20k_panoptic_val", "ade20k_panoptic_val.json"),
        ("mapillary_vistas_sem_seg_val", "config.json"),
        ("mapillary_vistas_panoptic_train", "panoptic_2018.json"),
    ],
)
def test_classes_that_are_not_known_say_in_which_file_they_are(root, name, file):
    metadata = MetadataCatalog.get(name)
    assert metadata.get("stuff_classes") is None and metadata.get("stuff_classes", 3) == 3
    with pytest.raises(AttributeError, match=rf"{name}.*stuff_classes.*{file} does not exist"):
        metadata.stuff_classes  # noqa: B018
    with pytest.raises(AttributeError, match="anything_else"):
        metadata.anything_else  # noqa: B018


def test_ade20k_labels(root):
    base = root / "ADEChallengeData2016"
    image(base / "images" / "training" / "a.jpg")
    draw(base / "annotations_detectron2" / "training" / "a.png", LABELS)
    rows = ("1\t0.1\t2\t3\twall", "2\t0.1\t2\t3\tbuilding, edifice", "3\t0.1\t2\t3\tbed ")
    write(base / "objectInfo150.txt", "\n".join(("Idx\tRatio\tTrain\tVal\tName", *rows)) + "\n")
    metadata = MetadataCatalog.get("ade20k_sem_seg_train")
    assert metadata.stuff_classes == ["wall", "building", "bed"]  # before anything is loaded
    (record,) = get_detection_dataset_dicts("ade20k_sem_seg_train")
    out = MaskFormerSemanticDatasetMapper(meta=metadata)(record)
    assert out["instances"].gt_classes.tolist() == [0, 1, 2]
    assert pickle.loads(pickle.dumps(metadata)) == metadata


def test_all_of_ade20k_is_named_by_number_or_by_a_file(root):
    base = root / "ADE20K_2021_17_01"
    metadata = MetadataCatalog.get("ade20k_full_sem_seg_val")
    write(base / "classes.txt", "wall\nbuilding\n")
    with pytest.raises(AttributeError, match=r"classes.txt has 2 names; give it 847"):
        metadata.stuff_classes  # noqa: B018
    names = [f"name {i}" for i in range(847)]
    write(base / "classes.txt", "\n".join(names))
    assert metadata.stuff_classes == names
    (base / "classes.txt").unlink()
    other = MetadataCatalog.get("ade20k_full_sem_seg_train").stuff_classes
    assert len(other) == 847 and other[846] == "class 846"
    image(base / "images_detectron2" / "validation" / "a.jpg")
    draw(base / "annotations_detectron2" / "validation" / "a.tif", LABELS.astype(np.uint16) * 257)
    (record,) = DatasetCatalog.get("ade20k_full_sem_seg_val")
    out = MaskFormerSemanticDatasetMapper(meta=metadata)(record)
    assert out["instances"].gt_classes.tolist() == [0, 257, 514]


def test_ade20k_instances(root):
    base = root / "ADEChallengeData2016"
    image(base / "images" / "validation" / "a.jpg")
    annotation = {
        "id": 1,
        "image_id": 3,
        "category_id": 8,
        "bbox": [1, 1, 3, 2],
        "area": 6,
        "iscrowd": 0,
        "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]],
    }
    content = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [annotation],
        "categories": [{"id": 8, "name": "bed"}, {"id": 2, "name": "door"}],
    }
    write(base / "ade20k_instance_val.json", content)
    (record,) = get_detection_dataset_dicts("ade20k_instance_val")
    assert MetadataCatalog.get("ade20k_instance_val").thing_classes == ["door", "bed"]
    out = MaskFormerInstanceDatasetMapper()(record)
    assert out["instances"].gt_classes.tolist() == [1]
    assert out["instances"].gt_masks[0].nonzero().tolist() == [
        [y, x] for y in (1, 2) for x in (1, 2, 3)
    ]


def test_ade20k_panoptic(root):
    write_ade_panoptic(root)
    metadata = MetadataCatalog.get("ade20k_panoptic_val")
    (record,) = get_detection_dataset_dicts("ade20k_panoptic_val")
    file = root / "ADEChallengeData2016" / "ade20k_panoptic_val.json"
    file.rename(file.with_suffix(".read"))  # it is large, and all is known now
    # All classes have one numbering, and things are looked up by it.
    assert metadata.thing_classes == metadata.stuff_classes == ["wall", "bed", "sky"]
    assert metadata.thing_colors == metadata.stuff_colors == [[4, 5, 6], [1, 2, 3], [7, 8, 9]]
    assert metadata.thing_dataset_id_to_contiguous_id == {7: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {1: 0, 7: 1, 9: 2}
    assert record["image_id"] == "a7"
    assert [s["isthing"] for s in record["segments_info"]] == [False, True, False]
    out = MaskFormerPanopticDatasetMapper(dataset_names="ade20k_panoptic_val")(record)
    assert out["instances"].gt_classes.tolist() == [0, 1, 2]
    rows = out["instances"].gt_masks.any(2).nonzero().tolist()
    assert rows == [[0, 0], [1, 1], [2, 2]]
    np.testing.assert_array_equal(out["sem_seg"].numpy(), LABELS)
    file.with_suffix(".read").rename(file)
    assert register_ade20k_panoptic.get_metadata(str(root))["stuff_classes"] == [
        "wall",
        "bed",
        "sky",
    ]


@pytest.mark.parametrize("evaluator", [SemSegEvaluator, COCOPanopticEvaluator])
def test_evaluators_find_the_classes_before_anything_is_loaded(root, evaluator):
    write_ade_panoptic(root)
    evaluator("ade20k_panoptic_val")


def test_a_panoptic_set_of_ones_own(root):
    write_ade_panoptic(root)
    base = root / "ADEChallengeData2016"
    metadata = register_ade20k_panoptic.get_metadata(str(root))
    register_ade20k_panoptic.register_ade20k_panoptic(
        "my_panoptic",
        metadata,
        image_root=str(base / "images" / "validation"),
        panoptic_root=str(base / "ade20k_panoptic_val"),
        semantic_root=str(base / "annotations_detectron2" / "validation"),
        panoptic_json=str(base / "ade20k_panoptic_val.json"),
        instances_json=None,
    )
    assert MetadataCatalog.get("my_panoptic").stuff_classes == ["wall", "bed", "sky"]
    (record,) = DatasetCatalog.get("my_panoptic")
    loaded = register_ade20k_panoptic.load_ade20k_panoptic_json(
        str(base / "ade20k_panoptic_val.json"),
        str(base / "images" / "validation"),
        str(base / "ade20k_panoptic_val"),
        str(base / "annotations_detectron2" / "validation"),
        metadata,
    )
    assert loaded == [record]
    DatasetCatalog.remove("my_panoptic")
    MetadataCatalog.remove("my_panoptic")


def test_panoptic_files_that_are_wrong_are_named(root):
    write_ade_panoptic(root)
    base = root / "ADEChallengeData2016"
    (base / "annotations_detectron2" / "validation" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a.png, the sem_seg_file_name of the first"):
        DatasetCatalog.get("ade20k_panoptic_val")
    json_file = base / "ade20k_panoptic_val.json"
    content = json.loads(json_file.read_text())
    metadata = register_ade20k_panoptic.get_metadata(str(root))
    content["annotations"][0]["segments_info"][1]["category_id"] = 4
    write(json_file, content)
    with pytest.raises(ValueError, match=r"segment 6 in .*val.json has category 4"):
        register_ade20k_panoptic.load_ade20k_panoptic_json(str(json_file), "", "", "", metadata)
    write(json_file, {"annotations": content["annotations"]})
    with pytest.raises(ValueError, match=r"val.json has no categories"):
        DatasetCatalog.get("ade20k_panoptic_val")
    write(json_file, "{")
    with pytest.raises(ValueError, match=r"val.json cannot be read as json"):
        DatasetCatalog.get("ade20k_panoptic_val")


def test_coco_panoptic(root):
    coco = root / "coco"
    metadata = MetadataCatalog.get("coco_2017_val_panoptic_with_sem_seg")
    write_panoptic(
        coco / "val2017",
        coco / "panoptic_val2017",
        coco / "panoptic_semseg_val2017",
        coco / "annotations" / "panoptic_val2017.json",
        CATEGORIES,
        image_id=139,
    )
    (record,) = get_detection_dataset_dicts("coco_2017_val_panoptic_with_sem_seg")
    assert record["image_id"] == 139
    assert [s["category_id"] for s in record["segments_info"]] == [0, 6, 8]  # of COCO's 1, 7, 9
    # Things come first, and an evaluation of instances wants their names alone.
    assert len(metadata.thing_classes) == 80 and len(metadata.stuff_classes) == 133
    assert metadata.stuff_classes[:80] == metadata.thing_classes
    assert metadata.stuff_classes[-1] == "rug" and metadata.stuff_classes[80] == "banner"
    assert sorted(metadata.thing_dataset_id_to_contiguous_id.values()) == list(range(80))
    assert metadata.stuff_dataset_id_to_contiguous_id[200] == 132
    assert metadata.json_file == str(coco / "annotations" / "instances_val2017.json")
    assert MaskFormerPanopticDatasetMapper()(record)["instances"].gt_classes.tolist() == [0, 6, 8]


def test_coco_numbers_its_classes_as_detectron2_does():
    ours = register_coco_panoptic_annos_semseg.get_metadata()
    standard = MetadataCatalog.get("coco_2017_val_panoptic")
    for kind in ("thing", "stuff"):
        key = f"{kind}_dataset_id_to_contiguous_id"
        assert getattr(standard, key).items() <= ours[key].items()


def test_coco_stuff(root):
    base = root / "coco" / "coco_stuff_10k"
    image(base / "images_detectron2" / "test" / "a.jpg")
    draw(base / "annotations_detectron2" / "test" / "a.png", LABELS)
    metadata = MetadataCatalog.get("coco_2017_test_stuff_10k_sem_seg")
    assert len(metadata.stuff_classes) == len(set(metadata.stuff_classes)) == 171
    numbers = metadata.stuff_dataset_id_to_contiguous_id
    named = {c: metadata.stuff_classes[numbers[c]] for c in (1, 90, 92, 130, 149, 182)}
    assert named == {
        1: "person",
        90: "toothbrush",
        92: "banner",
        130: "light",
        149: "road",
        182: "wood",
    }
    assert len(DatasetCatalog.get("coco_2017_test_stuff_10k_sem_seg")) == 1


def test_mapillary_vistas(root):
    base = root / "mapillary_vistas"
    labels = [{"readable": f"class {i}", "color": [i, 0, 0], "evaluate": i < 65} for i in range(66)]
    write(base / "config.json", {"labels": labels})
    metadata = MetadataCatalog.get("mapillary_vistas_sem_seg_train")
    assert metadata.stuff_classes == [f"class {i}" for i in range(65)]
    assert metadata.stuff_colors[64] == [64, 0, 0]
    image(base / "training" / "images" / "a.jpg")
    draw(base / "training" / "labels" / "a.png", np.where(LABELS == 255, 65, LABELS))
    (record,) = DatasetCatalog.get("mapillary_vistas_sem_seg_train")
    out = MaskFormerSemanticDatasetMapper(meta=metadata)(record)
    assert out["instances"].gt_classes.tolist() == [0, 1, 2]


def test_mapillary_vistas_panoptic(root):
    base = root / "mapillary_vistas" / "validation"
    write_panoptic(
        base / "images",
        base / "panoptic",
        base / "labels",
        base / "panoptic" / "panoptic_2018.json",
        CATEGORIES,
    )
    (record,) = DatasetCatalog.get("mapillary_vistas_panoptic_val")
    assert [s["category_id"] for s in record["segments_info"]] == [0, 1, 2]
    names = register_mapillary_vistas_panoptic.get_metadata(str(root))["stuff_classes"]
    assert MetadataCatalog.get("mapillary_vistas_panoptic_val").stuff_classes == names
