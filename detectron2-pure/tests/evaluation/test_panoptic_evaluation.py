"""The numbers are those of panopticapi, computed here by hand."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator
from PIL import Image

PERSON, DOG, SKY = 10, 20, 30
# Ids need not fit into one byte; 0 is no segment.
TRUTH = np.zeros((4, 10), dtype=np.int64)
TRUTH[:, 0:4], TRUTH[:, 4:6], TRUTH[:2, 6:] = 7, 1000, 70000
SEGMENTS = [(7, PERSON), (1000, DOG), (70000, SKY)]


@pytest.fixture
def make_dataset(tmp_path):
    name = "panoptic_eval_test"

    def make(crowds=(), images=(1,)):
        rgb = np.stack([TRUTH % 256, TRUTH // 256 % 256, TRUTH // 256**2], axis=-1)
        Image.fromarray(rgb.astype(np.uint8)).save(tmp_path / "0001.png")
        segments = [
            {
                "id": i,
                "category_id": c,
                "iscrowd": int(i in crowds),
                "area": int((i == TRUTH).sum()),
            }
            for i, c in SEGMENTS
        ]
        content = {
            "annotations": [
                {"image_id": i, "file_name": "0001.png", "segments_info": segments} for i in images
            ],
            "categories": [
                {"id": PERSON, "name": "person", "isthing": 1},
                {"id": DOG, "name": "dog", "isthing": 1},
                {"id": SKY, "name": "sky", "isthing": 0},
            ],
        }
        path = tmp_path / "panoptic.json"
        path.write_text(json.dumps(content))
        MetadataCatalog.get(name).set(
            panoptic_json=str(path),
            panoptic_root=str(tmp_path),
            label_divisor=1000,
            thing_dataset_id_to_contiguous_id={PERSON: 0, DOG: 1},
            stuff_dataset_id_to_contiguous_id={SKY: 2},
        )
        return name

    yield make
    MetadataCatalog.remove(name)


def segment(number, category, isthing):
    return {"id": number, "category_id": category, "isthing": isthing}


def evaluate(evaluator, ids, segments, image_id=1):
    image = {"image_id": image_id, "file_name": "0001.jpg"}
    evaluator.process([image], [{"panoptic_seg": (torch.as_tensor(ids), segments)}])
    return evaluator.evaluate()["panoptic_seg"]


def test_metrics(make_dataset):
    ids = np.zeros_like(TRUTH)
    ids[:, 0:3] = 1  # 12 of 16 pixels of the person
    ids[:2, 4:8] = 2  # a dog that has only 4 of 8 pixels of the dog, and 4 of the sky
    ids[:, 8:] = 3  # 4 of 8 pixels of the sky
    segments = [segment(1, 0, True), segment(2, 1, True), segment(3, 2, False)]
    results = evaluate(COCOPanopticEvaluator(make_dataset()), ids, segments)
    metrics = ["PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"]
    assert list(results) == metrics
    # The person is found with an IoU of 3 / 4, the dog and the sky are not.
    assert list(results.values()) == pytest.approx([25, 25, 100 / 3, 37.5, 37.5, 50, 0, 0, 0])


def test_pixels_of_no_segment_do_not_count(make_dataset):
    ids = TRUTH.copy()
    ids[2, 6:] = 70000  # below the sky
    own = [{"id": i, "category_id": c} for i, c in SEGMENTS]
    assert set(evaluate(COCOPanopticEvaluator(make_dataset()), ids, own).values()) == {100}


@pytest.mark.parametrize(("below_the_sky", "dogs"), [([9], 2 / 3), ([8, 9], 1)])
def test_segments_mostly_on_no_segment_are_not_wrong(make_dataset, below_the_sky, dogs):
    ids = TRUTH.copy()
    ids[0, 0] = ids[3, below_the_sky] = 9  # half of them is not most
    segments = [{"id": i, "category_id": c} for i, c in [*SEGMENTS, (9, DOG)]]
    results = evaluate(COCOPanopticEvaluator(make_dataset()), ids, segments)
    assert results["RQ_th"] == pytest.approx(100 * (1 + dogs) / 2)


def test_true_segments_are_perfect_also_as_categories_in_ids(make_dataset):
    evaluator = COCOPanopticEvaluator(make_dataset())
    ids = np.full_like(TRUTH, -1)
    for number, (truth_id, _) in enumerate(SEGMENTS):
        ids[truth_id == TRUTH] = number * 1000 + 5
    assert set(evaluate(evaluator, ids, None).values()) == {100}
    evaluator.reset()
    own = [{"id": i, "category_id": c} for i, c in SEGMENTS]
    assert set(evaluate(evaluator, TRUTH, own).values()) == {100}


@pytest.mark.parametrize(("crowds", "quality"), [((), 50), ((7,), 100)])
def test_crowds_are_neither_missed_nor_wrong(make_dataset, crowds, quality):
    """Two persons in place of one are wrong, in a crowd of persons they count nowhere."""
    ids = np.zeros_like(TRUTH)
    ids[:2, :4], ids[2:, :4], ids[:, 4:6], ids[:2, 6:] = 1, 2, 3, 4
    segments = [segment(i, 0, True) for i in (1, 2)] + [segment(3, 1, True), segment(4, 2, False)]
    results = evaluate(COCOPanopticEvaluator(make_dataset(crowds)), ids, segments)
    assert results["PQ_th"] == quality and results["PQ_st"] == 100


def test_images_that_were_not_processed_are_missed(make_dataset, caplog, tmp_path):
    evaluator = COCOPanopticEvaluator(make_dataset(images=(1, 2)), str(tmp_path / "out"))
    own = [{"id": i, "category_id": c} for i, c in SEGMENTS]
    assert evaluate(evaluator, TRUTH, own)["RQ"] == pytest.approx(100 / 1.5)
    assert "1 of 2 images of 'panoptic_eval_test' were not processed (for example 2)" in caplog.text
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == {
        "annotations": [{"image_id": 1, "file_name": "0001.png", "segments_info": own}]
    }


def test_what_does_not_fit(make_dataset):
    evaluator = COCOPanopticEvaluator(make_dataset())
    for ids, image_id, text in (
        (TRUTH[:2], 1, r"image 1 has size \(2, 10\), its annotation \(4, 10\)"),
        (TRUTH, 3, "has no image with id 3"),
        (TRUTH, 1, r"segments \[7, 1000, 70000\] are not in segments_info"),
    ):
        with pytest.raises(ValueError, match=text):
            evaluate(evaluator, ids, [], image_id)
