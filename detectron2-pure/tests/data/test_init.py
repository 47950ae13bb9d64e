"""Names that projects import from modules other than those they are defined in."""

import importlib

import pytest

ELSEWHERE = {
    "data.build": "DatasetCatalog MetadataCatalog ToIterableDataset AspectRatioGroupedDataset "
    "check_metadata_consistency filter_images_with_only_crowd_annotations "
    "filter_images_with_few_keypoints get_detection_dataset_dicts InferenceSampler TrainingSampler",
    "data.detection_utils": "_apply_exif_orientation read_image SizeMismatchError",
    "data.transforms.transform": "TransformList HFlipTransform NoOpTransform",
    "data.transforms.augmentation_impl": "RandomCrop RandomContrast FixedSizeCrop",
    "data.datasets.register_coco": "register_coco_instances register_coco_panoptic_separated",
    "evaluation.coco_evaluation": "COCOeval COCOevalMaxDets instances_to_coco_json",
}


@pytest.mark.parametrize("module", ELSEWHERE)
def test_names_are_found_where_projects_look_for_them(module):
    found = importlib.import_module("detectron2." + module)
    assert [name for name in ELSEWHERE[module].split() if not hasattr(found, name)] == []
