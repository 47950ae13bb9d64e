"""The two catalogs."""

import logging
import pickle

import pytest
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog


@pytest.fixture
def name():
    """A name that is free before and after the test."""
    yield "catalog_test"
    DatasetCatalog.data.pop("catalog_test", None)
    MetadataCatalog.data.pop("catalog_test", None)


def test_function_is_called_when_asked_and_not_before(name):
    calls = []
    DatasetCatalog.register(name, lambda: calls.append(1) or [{"file_name": "a"}])
    assert calls == []
    assert DatasetCatalog.get(name) == [{"file_name": "a"}]
    assert DatasetCatalog.get(name) == [{"file_name": "a"}]
    assert calls == [1, 1]
    assert name in DatasetCatalog and name in DatasetCatalog.list()
    DatasetCatalog.remove(name)
    assert name not in DatasetCatalog


def test_second_registration_is_refused(name):
    DatasetCatalog.register(name, lambda: [1])
    with pytest.raises(AssertionError, match=f"Dataset '{name}' is already registered!"):
        DatasetCatalog.register(name, lambda: [2])
    assert DatasetCatalog.get(name) == [1]
    with pytest.raises(AssertionError, match="must register a function"):
        DatasetCatalog.register(name + "2", [1])


def test_unknown_name_tells_the_closest_and_all_names():
    with pytest.raises(
        KeyError, match=r"coco_2017_trian.*not registered.*Did you mean coco_2017_tr"
    ):
        DatasetCatalog.get("coco_2017_trian")
    with pytest.raises(KeyError, match=r"Available datasets are:.*coco_2017_val"):
        DatasetCatalog.get("nothing like it")


def test_error_of_the_loading_function_is_not_taken_for_an_unknown_name(name):
    def load():
        raise KeyError("width")

    DatasetCatalog.register(name, load)
    with pytest.raises(KeyError, match=r"^'width'$"):
        DatasetCatalog.get(name)


def test_metadata_is_one_object_per_name_and_set_once(name):
    metadata = MetadataCatalog.get(name)
    assert metadata.name == name
    assert metadata.set(thing_classes=["a", "b"], extra=1) is metadata
    assert MetadataCatalog.get(name) is metadata
    metadata.thing_classes = ["a", "b"]  # equal: allowed
    with pytest.raises(AssertionError, match="'thing_classes' in the metadata of 'catalog_test'"):
        metadata.thing_classes = ["a"]
    assert metadata.thing_classes == ["a", "b"]
    assert metadata.as_dict() == {"name": name, "thing_classes": ["a", "b"], "extra": 1}
    assert metadata.get("extra") == 1 and metadata.get("nothing", 7) == 7


def test_missing_attribute_tells_what_there_is(name):
    metadata = MetadataCatalog.get(name)
    with pytest.raises(AttributeError, match=r"thing_classes.*metadata is empty"):
        _ = metadata.thing_classes
    metadata.set(json_file="x")
    with pytest.raises(AttributeError, match=r"thing_classes.*Available keys are: json_file"):
        _ = metadata.thing_classes
    assert not hasattr(metadata, "stuff_classes")


def test_misspelled_dataset_gets_a_hint():
    try:
        with pytest.raises(AttributeError, match="Did you mean coco_2017_train"):
            _ = MetadataCatalog.get("coco_2017_tarin").thing_classes
    finally:
        MetadataCatalog.remove("coco_2017_tarin")


def test_renamed_attributes_still_work(name, caplog):
    metadata = MetadataCatalog.get(name)
    with caplog.at_level(logging.WARNING):
        metadata.class_names = ["a"]
    assert metadata.thing_classes == ["a"] and metadata.class_names == ["a"]
    assert metadata.get("class_names") == ["a"]
    assert "was renamed to 'thing_classes'" in caplog.text


def test_metadata_can_be_pickled():
    metadata = Metadata(name="x").set(thing_classes=["a"])
    again = pickle.loads(pickle.dumps(metadata))
    assert again.as_dict() == metadata.as_dict() and type(again) is Metadata
