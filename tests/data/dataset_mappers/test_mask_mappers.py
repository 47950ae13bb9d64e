from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from PIL import Image

from detrex.data.dataset_mappers import (
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    DetrDatasetMapper,
    MaskDatasetMapper,
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerSemanticDatasetMapper,
)

INSTANCE = [COCOInstanceNewBaselineDatasetMapper, MaskFormerInstanceDatasetMapper]
PANOPTIC = [COCOPanopticNewBaselineDatasetMapper, MaskFormerPanopticDatasetMapper]
SEMANTIC = [MaskFormerSemanticDatasetMapper]
ALL = [*INSTANCE, *PANOPTIC, *SEMANTIC]


def build(mapper, augmentation=(), **kwargs):
    plural = mapper in (MaskFormerInstanceDatasetMapper, MaskFormerPanopticDatasetMapper)
    return mapper(**{"augmentations" if plural else "augmentation": list(augmentation)}, **kwargs)


def record_for(mapper, scene):
    """A record that has all that the mapper could read, and more."""
    if mapper in INSTANCE:
        return scene.instances
    return {**scene.panoptic, **scene.semantic} if mapper in PANOPTIC else scene.semantic


def drawn(mapper, scene):
    """Classes and masks of the scene, as the mapper should give them."""
    if mapper in SEMANTIC:
        pairs = [(c, scene.labels == c) for c in (1, 2, 5, 6, 7)]
    elif mapper in PANOPTIC:
        pairs = [(c, scene.ids == i) for i, c in scene.segments.items()]
    else:
        pairs = [(c, scene.ids == i) for i, c in ((256**2, 1), (2, 2))]
    classes, masks = zip(*pairs, strict=True)
    return torch.tensor(classes), torch.from_numpy(np.stack(masks))


@pytest.mark.parametrize("mapper", ALL)
def test_training_without_augmentation_gives_what_was_drawn(mapper, scene):
    record = record_for(mapper, scene)
    before = copy.deepcopy(record)
    out = build(mapper)(record)
    assert record == before
    assert out["image"].dtype == torch.uint8
    np.testing.assert_array_equal(out["image"].numpy(), scene.pixels.transpose(2, 0, 1))
    assert out["padding_mask"].shape == (24, 32) and not out["padding_mask"].any()
    classes, masks = drawn(mapper, scene)
    instances = out["instances"]
    assert instances.image_size == (24, 32)
    assert instances.gt_classes.dtype == torch.int64 and torch.equal(instances.gt_classes, classes)
    assert instances.gt_masks.dtype == torch.bool and torch.equal(instances.gt_masks, masks)
    assert {k: out[k] for k in scene.image} == scene.image
    assert not {"annotations", "pan_seg_file_name", "segments_info"} & out.keys()


@pytest.mark.parametrize("mapper", INSTANCE)
def test_boxes_are_around_the_masks(mapper, scene):
    boxes = build(mapper)(scene.instances)["instances"].gt_boxes.tensor
    torch.testing.assert_close(boxes, torch.tensor([[3.0, 4, 9, 12], [16, 14, 30, 20]]))


@pytest.mark.parametrize("mapper", [*SEMANTIC, MaskFormerPanopticDatasetMapper])
def test_labels_per_pixel(mapper, scene):
    out = build(mapper)(record_for(mapper, scene))
    assert out["sem_seg"].dtype == torch.int64
    np.testing.assert_array_equal(out["sem_seg"].numpy(), scene.labels)
    assert "sem_seg_file_name" not in out


def test_large_labels(scene, tmp_path):
    """Those of the full ADE20K have 16 bits."""
    labels = scene.labels.astype(np.uint16)
    labels[labels == 255] = 65535
    labels[labels == 7] = 800
    Image.fromarray(labels).save(tmp_path / "sem.tif")
    record = {**scene.image, "sem_seg_file_name": str(tmp_path / "sem.tif")}
    mapper = MaskFormerSemanticDatasetMapper(
        meta=Metadata(name="full", ignore_label=65535),
        augmentation=[T.HFlipTransform(32), T.FixedSizeCrop((24, 40))],
    )
    out = mapper(record)
    assert out["instances"].gt_classes.tolist() == [1, 2, 5, 6, 800]
    expected = np.full((24, 40), 65535)
    expected[:, :32] = labels[:, ::-1]
    np.testing.assert_array_equal(out["sem_seg"].numpy(), expected)


@pytest.mark.parametrize("mapper", ALL)
def test_evaluation_has_no_targets(mapper, scene):
    resize = T.ResizeShortestEdge(48, max_size=1000)
    record = record_for(mapper, scene)
    out = build(mapper, [resize], is_train=False, image_format="BGR")(record)
    assert out["image"].shape == (3, 48, 64) and not out["padding_mask"].any()
    assert not {"instances", "sem_seg", "annotations"} & out.keys()
    # Evaluators look up what an image was annotated with.
    kept = record.keys() - {"annotations"}
    assert {k: out[k] for k in kept} == {k: record[k] for k in kept}
    plain = build(mapper, is_train=False, image_format="BGR")(scene.image)["image"]
    np.testing.assert_array_equal(plain.numpy(), scene.pixels[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize("mapper", ALL)
def test_targets_follow_the_image(mapper, scene):
    """Mirrored, doubled, cut to what is right of column 20, and padded to a square."""
    steps = [
        T.HFlipTransform(32),
        T.ResizeScale(2.0, 2.0, target_height=24, target_width=32),
        T.CropTransform(20, 0, 44, 48),
        T.FixedSizeCrop((50, 50)),
    ]
    out = build(mapper, steps)(record_for(mapper, scene))
    assert out["image"].shape == (3, 50, 50)
    padded = torch.ones(50, 50, dtype=torch.bool)
    padded[:48, :44] = False
    assert torch.equal(out["padding_mask"], padded)
    assert (out["image"][:, padded] == 128).all()
    classes, masks = drawn(mapper, scene)
    doubled = masks.flip(2).repeat_interleave(2, 1).repeat_interleave(2, 2)
    expected = torch.zeros(len(masks), 50, 50, dtype=torch.bool)
    expected[:, :48, :44] = doubled[:, :, 20:]
    seen = expected.flatten(1).any(1)
    assert torch.equal(out["instances"].gt_classes, classes[seen])
    assert torch.equal(out["instances"].gt_masks, expected[seen])
    if "sem_seg" in out:
        assert (out["sem_seg"][padded] == 255).all()


@pytest.mark.parametrize("mapper", ALL)
def test_what_is_cropped_away_is_left_out(mapper, scene):
    out = build(mapper, [T.CropTransform(0, 0, 1, 24)])(record_for(mapper, scene))
    instances = out["instances"]
    assert len(instances) == 0 and instances.image_size == (24, 1)
    assert instances.gt_masks.shape == (0, 24, 1) and instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64


@pytest.mark.parametrize("mapper", [*SEMANTIC, *INSTANCE[1:], *PANOPTIC[1:]])
def test_sides_are_padded_to_multiples(mapper, scene):
    out = build(mapper, size_divisibility=20)(record_for(mapper, scene))
    assert out["image"].shape == (3, 40, 40) and out["instances"].image_size == (40, 40)
    assert (out["image"][:, 24:] == 128).all() and (out["image"][:, :, 32:] == 128).all()
    assert out["padding_mask"][24:].all() and out["padding_mask"][:, 32:].all()
    assert not out["padding_mask"][:24, :32].any()
    _, masks = drawn(mapper, scene)
    assert torch.equal(out["instances"].gt_masks[:, :24, :32], masks)
    assert out["instances"].gt_masks.sum() == masks.sum()
    if "sem_seg" in out:
        assert (out["sem_seg"][24:] == 255).all() and (out["sem_seg"][:, 32:] == 255).all()


def test_a_large_divisibility_is_a_size(scene):
    out = build(MaskFormerSemanticDatasetMapper, size_divisibility=64)(scene.semantic)
    assert out["image"].shape == (3, 64, 64)


def test_padding_of_labels_has_the_label_to_ignore(scene):
    """Not the 255 of FixedSizeCrop, which is a class where there are that many."""
    MetadataCatalog.get("a_set_with_65").ignore_label = 65
    record = {**scene.panoptic, **scene.semantic}
    crop = [T.FixedSizeCrop((30, 32))]
    mappers = [
        MaskFormerPanopticDatasetMapper(dataset_names="a_set_with_65", augmentations=crop),
        MaskFormerPanopticDatasetMapper(dataset_names=["a_set_with_65"], augmentations=crop),
        MaskFormerPanopticDatasetMapper(ignore_label=65, augmentations=crop),
        MaskFormerSemanticDatasetMapper(
            meta=MetadataCatalog.get("a_set_with_65"), augmentation=crop
        ),
    ]
    for mapper in mappers:
        assert (mapper(record)["sem_seg"][24:] == 65).all()
    MetadataCatalog.remove("a_set_with_65")


def test_crowds_are_no_segments(scene):
    record = scene.panoptic
    record["segments_info"][0]["iscrowd"] = 1
    out = COCOPanopticNewBaselineDatasetMapper()(record)
    assert out["instances"].gt_classes.tolist() == [6, 7, 1, 2]


def test_run_lengths_are_masks_too(scene):
    import pycocotools.mask as mask_util

    record = scene.instances
    mask = np.asfortranarray(scene.ids == 2, dtype=np.uint8)
    record["annotations"][2]["segmentation"] = mask_util.encode(mask)
    flip = [T.HFlipTransform(32)]
    out = COCOInstanceNewBaselineDatasetMapper(augmentation=flip)(record)
    expected = torch.from_numpy((scene.ids == 2)[:, ::-1].copy())
    assert torch.equal(out["instances"].gt_masks[1], expected)


@pytest.mark.parametrize("mapper", ALL)
def test_what_a_record_lacks_is_named(mapper, scene):
    key = "annotations" if mapper in INSTANCE else "sem_seg_file_name"
    key = "pan_seg_file_name" if mapper is COCOPanopticNewBaselineDatasetMapper else key
    with pytest.raises(ValueError, match=f"image.png has no {key}"):
        build(mapper)(scene.image)


@pytest.mark.parametrize("key", ["sem_seg_file_name", "pan_seg_file_name"])
def test_label_files_that_are_wrong_are_named(key, scene, tmp_path):
    mapper = MaskFormerPanopticDatasetMapper()
    record = {**scene.panoptic, **scene.semantic}
    other = tmp_path / "other.png"
    with pytest.raises(FileNotFoundError, match=rf"other.png, the {key} of image .*image.png"):
        mapper({**record, key: str(other)})
    other.write_text("no image")
    with pytest.raises(OSError, match=rf"other.png, the {key} of image .* cannot be read"):
        mapper({**record, key: str(other)})
    Image.fromarray(np.zeros((5, 6), dtype=np.uint8)).save(other)
    with pytest.raises(ValueError, match=rf"other.png, the {key} .* has 5 x 6 .* image 24 x 32"):
        mapper({**record, key: str(other)})


def test_colors_are_no_labels(scene):
    record = {**scene.semantic, "sem_seg_file_name": scene.panoptic["pan_seg_file_name"]}
    with pytest.raises(ValueError, match=r"pan.png.* has 3 numbers per pixel"):
        MaskFormerSemanticDatasetMapper()(record)


def test_an_image_that_is_missing_is_named(scene):
    with pytest.raises(FileNotFoundError, match=r"gone.png does not exist"):
        MaskFormerInstanceDatasetMapper()({**scene.instances, "file_name": "gone.png"})


def test_an_object_without_mask_is_named(scene):
    record = scene.instances
    del record["annotations"][2]["segmentation"]
    with pytest.raises(ValueError, match=r"annotation number 2 of .*image.png has no segment"):
        COCOInstanceNewBaselineDatasetMapper()(record)


def test_a_mapper_of_ones_own_says_where_its_segments_come_from(scene):
    with pytest.raises(
        NotImplementedError, match=r"MaskDatasetMapper does not define segments\(\)"
    ):
        MaskDatasetMapper()(scene.image)


@pytest.mark.parametrize("mapper", ALL)
def test_mappers_travel_to_workers(mapper, scene):
    augmentation = [T.RandomFlip(), T.ResizeShortestEdge(24)]
    out = pickle.loads(pickle.dumps(build(mapper, augmentation)))(record_for(mapper, scene))
    assert out["image"].shape == (3, 24, 32)


def test_names_of_the_public_detrex():
    import detrex.data
    import detrex.data.dataset_mappers as mappers

    for mapper in [*ALL, DetrDatasetMapper]:
        assert getattr(detrex.data, mapper.__name__) is mapper
        assert getattr(mappers, mapper.__name__) is mapper
    assert detrex.data.transforms.ColorAugSSDTransform
    with pytest.raises(AttributeError, match="no attribute 'NoMapper'"):
        detrex.data.NoMapper  # noqa: B018
