from __future__ import annotations

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.catalog import Metadata
from omegaconf import OmegaConf
from PIL import Image

from detrex.data import (
    DatasetError,
    check_dataloaders,
    check_dataset,
    coco_dataset,
    register_coco,
)


def _load(paths):
    return coco_dataset(*paths), MetadataCatalog.get(register_coco(*paths))


def _dataloader(train, test=None):
    nodes = {"train": {"dataset": train}}
    if test is not None:
        nodes["test"] = {"dataset": test}
    return OmegaConf.create(nodes, flags={"allow_objects": True})


def _node(paths):
    return L(coco_dataset)(json_file=paths[0], image_root=paths[1])


def test_a_good_data_set_passes(coco, write, caplog):
    paths = write(coco)
    check_dataloaders(_dataloader(_node(paths), _node(paths)), num_classes=2, num_queries=2)
    ours = [r for r in caplog.records if r.name.startswith("detrex")]
    assert not [r for r in ours if r.levelname == "WARNING"]


def test_what_was_checked_is_not_read_again(coco, write, monkeypatch):
    paths = write(coco)
    read = []
    get = DatasetCatalog.get
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: read.append(name) or get(name))
    check_dataloaders(_dataloader(_node(paths), _node(paths)))
    first = coco_dataset(*paths)
    assert len(read) == 1 and len(first) == 3
    coco_dataset(*paths)  # handed over once, so that it isn't held for ever
    assert len(read) == 2
    check_dataloaders(_dataloader(_node(paths)), splits=("train",))
    coco["images"].pop()
    write(coco)
    assert len(coco_dataset(*paths)) == 2


def test_wrong_number_of_classes_names_the_override(coco, write):
    dicts, metadata = _load(write(coco))
    with pytest.raises(DatasetError, match=r"2 classes \(cat, dog\).*model.num_classes=2"):
        check_dataset(dicts, metadata, num_classes=80)


def test_class_ids_out_of_range_are_named(coco, write):
    dicts, metadata = _load(write(coco))
    dicts[1]["annotations"][0]["category_id"] = 2
    with pytest.raises(DatasetError, match=r"number 0 of .*1\.png has class 2.*0 to 1"):
        check_dataset(dicts, metadata)
    dicts[1]["annotations"][0]["category_id"] = -1
    with pytest.raises(DatasetError, match="has class -1"):
        check_dataset(dicts, metadata)


@pytest.mark.parametrize(
    "bbox", [[5, 5, 0, 4], [5, 5, float("nan"), 4], [40, 5, 4, 4], [5, -9, 4, 9]]
)
def test_boxes_that_show_nothing_are_counted_and_named(coco, write, caplog, bbox):
    dicts, metadata = _load(write(coco))
    dicts[0]["annotations"][1]["bbox"] = bbox
    check_dataset(dicts, metadata)
    assert "1 annotations have a box without area" in caplog.text
    assert "number 1 of" in caplog.text and "0.png" in caplog.text


def test_more_objects_than_queries_is_a_warning(coco, write, caplog):
    dicts, metadata = _load(write(coco))
    check_dataset(dicts, metadata, num_queries=1)
    assert "1 of 3 images have more objects than the model's 1 queries" in caplog.text
    assert "0.png has 2" in caplog.text and "model.num_queries" in caplog.text


def test_missing_images_are_counted_and_named(coco, write, tmp_path):
    dicts, metadata = _load(write(coco))
    (tmp_path / "images" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images do not exist.*1\.png.*image_root"):
        check_dataset(dicts, metadata)


def test_files_that_are_no_images_are_named(coco, write, tmp_path):
    dicts, metadata = _load(write(coco))
    (tmp_path / "images" / "1.png").write_text("<html>404</html>")
    with pytest.raises(DatasetError, match=r"1 of 3 images.*1\.png is not an image"):
        check_dataset(dicts, metadata)


def test_images_of_another_size_are_named(coco, write, tmp_path):
    dicts, metadata = _load(write(coco))
    Image.new("RGB", (30, 40)).save(tmp_path / "images" / "1.png")
    with pytest.raises(DatasetError, match=r"1\.png is 30x40 and annotated as 40x30"):
        check_dataset(dicts, metadata)
    # Stored lying on its side and marked so, it is the annotated size when shown.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(tmp_path / "images" / "1.png", exif=exif)
    check_dataset(dicts, metadata)


def test_nothing_to_learn(coco, write):
    coco["annotations"].clear()
    paths = write(coco)
    with pytest.raises(DatasetError, match="no object to learn from"):
        check_dataloaders(_dataloader(_node(paths)), splits=("train",))
    check_dataset(*_load(paths), needs_objects=False)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}], "class 0 is 'cat' in one and 'dog'"),
        (
            [{"id": i, "name": n} for i, n in ((3, "cat"), (7, "dog"), (8, "cow"))],
            r"2 classes \(cat, dog\) and 3 \(cat, dog, cow\)",
        ),
    ],
)
def test_train_and_test_must_mean_the_same_classes(coco, write, categories, message):
    train = _node(write(coco))
    coco["categories"] = categories
    test = _node(write(coco, "other.json"))
    with pytest.raises(DatasetError, match=message):
        check_dataloaders(_dataloader(train, test))
    check_dataloaders(_dataloader(train, test), splits=("test",))


def test_data_sets_given_by_name_are_checked_too(coco, write):
    name = register_coco(*write(coco))
    for names in (name, [name]):
        node = L(get_detection_dataset_dicts)(names=names, filter_empty=False)
        with pytest.raises(DatasetError, match="2 classes"):
            check_dataloaders(_dataloader(node), num_classes=3, splits=("train",))


def test_paths_that_are_not_given_are_named(coco, write):
    node = L(coco_dataset)(json_file="???", image_root="???")
    with pytest.raises(
        DatasetError, match=r"dataloader\.test\.dataset\.json_file and dataloader\.test.*image_root"
    ):
        check_dataloaders(_dataloader(_node(write(coco)), node))


def test_other_kinds_of_data_sets_are_let_through():
    check_dataloaders(_dataloader(L(tuple)(), None), splits=("train",))


def _segmented(coco, write, **keys):
    """Records of the coco fixture with other annotations than boxes."""
    dicts, _ = _load(write(coco))
    return [
        {**{k: v for k, v in d.items() if k != "annotations"}, "sem_seg_file_name": "a", **keys}
        for d in dicts
    ]


def test_segments_are_checked_against_all_classes(coco, write):
    """Things alone in ``thing_classes``, as COCO's panoptic metadata have them, are no mistake."""
    metadata = Metadata(thing_classes=["dog"], stuff_classes=["dog", "sky", "sea"])
    dicts = _segmented(coco, write, segments_info=[{"id": 7, "category_id": 2}])
    check_dataset(dicts, metadata, num_classes=3, num_queries=5)
    with pytest.raises(DatasetError, match=r"has 3 classes \(dog, sky, sea\)"):
        check_dataset(dicts, metadata, num_classes=1)
    dicts[1]["segments_info"] = [{"id": 7, "category_id": 3}]
    with pytest.raises(DatasetError, match=r"1.png has class 3"):
        check_dataset(dicts, metadata, num_classes=3)


def test_labels_per_pixel_need_no_objects(coco, write):
    check_dataset(_segmented(coco, write), Metadata(stuff_classes=["sky", "sea"]), num_classes=2)


def test_segmented_sets_may_spell_names_in_two_ways(coco, write):
    dicts = _segmented(coco, write)
    for name, spelling in (("segmented_a", "tree-merged"), ("segmented_b", "tree")):
        DatasetCatalog.register(name, lambda: dicts)
        MetadataCatalog.get(name).thing_classes = [spelling]
    names = [L(get_detection_dataset_dicts)(names=f"segmented_{x}") for x in "ab"]
    check_dataloaders(_dataloader(*names))
    for x in "ab":
        DatasetCatalog.remove(f"segmented_{x}")
        MetadataCatalog.remove(f"segmented_{x}")
