"""From names to batches."""

import itertools
import logging
import pickle
import random
import sys

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, LazyCall, instantiate
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    ToIterableDataset,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from detectron2.data.build import filter_images_with_few_keypoints
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import Dataset, SequentialSampler


def records(count=12):
    """Landscapes and portraits."""
    shapes = [(4, 2), (2, 4), (4, 2), (4, 2), (2, 4)]
    return [
        {"width": shapes[i % 5][0], "height": shapes[i % 5][1], "image_id": i, "file_name": f"{i}"}
        for i in range(count)
    ]


def draw(record):
    """A mapper that uses all three random generators."""
    return {
        "width": record["width"],
        "height": record["height"],
        "image_id": record["image_id"],
        "draws": (random.random(), float(np.random.rand()), float(torch.rand(()))),
    }


def plain(batches):
    return [[(s["image_id"], *s["draws"]) for s in batch] for batch in batches]


def train_loader(dataset=None, seed=3, **kwargs):
    dataset = records() if dataset is None else dataset
    kwargs = {"mapper": draw, "total_batch_size": 3, **kwargs}
    return build_detection_train_loader(dataset, sampler=TrainingSampler(12, seed=seed), **kwargs)


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


@pytest.mark.parametrize("grouping", [True, False])
def test_batches_do_not_depend_on_workers(grouping):
    expected = plain(take(train_loader(aspect_ratio_grouping=grouping), 9))
    assert all(len(batch) == 3 for batch in expected)
    for num_workers in (1, 2, 3):
        loader = train_loader(aspect_ratio_grouping=grouping, num_workers=num_workers)
        assert plain(take(loader, 9)) == expected
    assert plain(take(train_loader(seed=4, aspect_ratio_grouping=grouping), 9)) != expected


def test_augmentations_differ_between_passes_and_samples():
    draws = [s["draws"] for batch in take(train_loader(), 12) for s in batch]
    assert len(set(draws)) == 36


@pytest.mark.parametrize("num_workers", [0, 2])
def test_generators_of_the_main_process_are_left_alone(num_workers):
    iterator = iter(train_loader(num_workers=num_workers))
    np.random.seed(1)
    torch.manual_seed(1)
    random.seed(1)
    next(iterator)
    got = (np.random.rand(), torch.rand(()).item(), random.random())
    np.random.seed(1)
    torch.manual_seed(1)
    random.seed(1)
    assert got == (np.random.rand(), torch.rand(()).item(), random.random())


def test_seeding_leaves_cuda_alone(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a forked worker must not touch CUDA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_rng_state", "set_rng_state", "manual_seed", "manual_seed_all", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, fail)
    assert len(take(train_loader(), 2)) == 2


def test_groups_are_kept_and_order_is_the_samplers():
    batches = take(train_loader(), 8)
    for batch in batches:
        assert len({s["width"] > s["height"] for s in batch}) == 1
    stream = list(itertools.islice(TrainingSampler(12, seed=3), 60))
    wide = [i for i in stream if i % 5 in (0, 2, 3)]
    got = [s["image_id"] for batch in batches for s in batch if s["width"] > s["height"]]
    assert got == wide[: len(got)]


def test_without_grouping_the_order_is_the_samplers():
    batches = take(train_loader(aspect_ratio_grouping=False), 8)
    got = [s["image_id"] for batch in batches for s in batch]
    assert got == list(itertools.islice(TrainingSampler(12, seed=3), 24))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("grouping", [True, False])
def test_start_in_the_middle(grouping, num_workers):
    expected = plain(take(train_loader(aspect_ratio_grouping=grouping), 10))
    loader = train_loader(seed=77, aspect_ratio_grouping=grouping, num_workers=num_workers)
    loader.start_at(6, seed=3)
    assert loader.seed == 3
    assert plain(take(loader, 4)) == expected[6:]


def test_sampler_that_starts_in_the_middle_gives_the_same_samples():
    expected = plain(take(train_loader(aspect_ratio_grouping=False), 10))
    loader = build_detection_train_loader(
        records(),
        mapper=draw,
        sampler=TrainingSampler(12, seed=3, start=6 * 3),
        total_batch_size=3,
        aspect_ratio_grouping=False,
    )
    assert plain(take(loader, 4)) == expected[6:]


def test_processes_share_a_stream_without_repeating_seeds(monkeypatch):
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    samples = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = train_loader(total_batch_size=6, aspect_ratio_grouping=False)
        samples += [s for batch in take(loader, 4) for s in batch]
    assert sorted(s["image_id"] for s in samples) == sorted(list(range(12)) * 2)
    assert len({s["draws"] for s in samples}) == 24
    with pytest.raises(
        AssertionError, match=r"\(5\) must be divisible by the number of gpus \(2\)"
    ):
        train_loader(total_batch_size=5)


def test_seed_of_augmentations_alone():
    def ids_and_draws(**kwargs):
        samples = [s for batch in take(train_loader(**kwargs), 5) for s in batch]
        return [s["image_id"] for s in samples], [s["draws"] for s in samples]

    ids, draws = ids_and_draws(seed=3)
    dataset = MapDataset(DatasetFromList(records()), draw)
    loader = build_batch_data_loader(
        dataset, TrainingSampler(12, seed=3), 3, aspect_ratio_grouping=True, seed=8
    )
    samples = [s for batch in take(loader, 5) for s in batch]
    assert [s["image_id"] for s in samples] == ids
    assert not {s["draws"] for s in samples} & set(draws)


def test_default_sampler_follows_numpys_seed():
    runs = []
    for _ in range(2):
        np.random.seed(11)
        loader = build_detection_train_loader(records(), mapper=draw, total_batch_size=3)
        runs.append(plain(take(loader, 5)))
    assert runs[0] == runs[1]


def without_size(record):
    return {k: v for k, v in record.items() if k not in ("width", "height")}


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_grouping_by_mapped_sizes(num_workers):
    """Records without sizes: the mapper finds them in the image."""
    sizes = {r["image_id"]: r for r in records()}
    loader = train_loader(
        [without_size(r) for r in records()],
        mapper=lambda record: draw(sizes[record["image_id"]]),
        num_workers=num_workers,
    )
    batches = take(loader, 8)
    # The stream, its seeds and the groups are the same as with known sizes.
    assert plain(batches) == plain(take(train_loader(), 8))


def test_sizes_in_some_records_only():
    data = records()
    data[4] = without_size(data[4])
    with pytest.raises(KeyError, match=r"Record 4 .*'4'.*no 'width'"):
        take(train_loader(data), 8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_map_style_dataset_of_samples(num_workers):
    class Squares(Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return i * i

    loader = train_loader(
        Squares(), mapper=None, aspect_ratio_grouping=False, num_workers=num_workers
    )
    stream = list(itertools.islice(TrainingSampler(12, seed=3), 6))
    assert take(loader, 2) == [[i * i for i in stream[:3]], [i * i for i in stream[3:]]]


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterable_dataset(grouping, num_workers):
    stream = ToIterableDataset(DatasetFromList(records()), TrainingSampler(12, seed=3))
    loader = build_detection_train_loader(
        stream,
        mapper=lambda record: None if record["image_id"] == 5 else record,
        total_batch_size=2,
        aspect_ratio_grouping=grouping,
        num_workers=num_workers,
    )
    batches = take(loader, 20)
    assert all(len(batch) == 2 for batch in batches)
    seen = {record["image_id"] for batch in batches for record in batch}
    assert seen == set(range(12)) - {5}
    with pytest.raises(AssertionError, match="sampler must be None"):
        train_loader(stream)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_collate(num_workers):
    loader = train_loader(
        collate_fn=lambda batch: tuple(s["image_id"] for s in batch),
        num_workers=num_workers,
        aspect_ratio_grouping=False,
    )
    assert take(loader, 1) == [tuple(itertools.islice(TrainingSampler(12, seed=3), 3))]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_names_the_file(num_workers):
    def fail(record):
        raise ZeroDivisionError("oh")

    with pytest.raises(ZeroDivisionError) as info:
        take(train_loader(mapper=fail, num_workers=num_workers), 1)
    if sys.version_info >= (3, 11):
        text = str(info.value) + "".join(getattr(info.value, "__notes__", ()))
        assert "file_name='" in text


def test_finite_sampler_and_its_last_batch():
    dataset = MapDataset(DatasetFromList(records(7)), draw)
    for drop_last, lengths in ((True, [3, 3]), (False, [3, 3, 1])):
        loader = build_batch_data_loader(
            dataset, SequentialSampler(dataset), 3, drop_last=drop_last
        )
        assert [len(batch) for batch in loader] == lengths and len(loader) == len(lengths)
    loader = build_batch_data_loader(
        dataset, SequentialSampler(dataset), 0, single_gpu_batch_size=2
    )
    assert [len(batch) for batch in loader] == [2, 2, 2]


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize(("batch_size", "lengths"), [(1, [1] * 12), (5, [5, 5, 2])])
def test_test_loader_has_everything_once(num_workers, batch_size, lengths):
    loader = build_detection_test_loader(
        records(), mapper=lambda r: r["image_id"], batch_size=batch_size, num_workers=num_workers
    )
    batches = list(loader)
    assert [len(batch) for batch in batches] == lengths and len(loader) == len(lengths)
    assert list(itertools.chain(*batches)) == list(range(12))


@pytest.mark.parametrize("num_workers", [0, 3])
def test_test_loader_with_iterable_dataset(num_workers):
    stream = ToIterableDataset(DatasetFromList(list(range(50))), InferenceSampler(50))
    loader = build_detection_test_loader(stream, mapper=lambda x: x, num_workers=num_workers)
    assert sorted(itertools.chain(*loader)) == list(range(50))


def test_loaders_from_lazy_configs():
    node = LazyCall(build_detection_test_loader)(
        dataset=LazyCall(DatasetFromList)(lst=[1, 2, 3]), mapper=lambda x: 2 * x, batch_size=2
    )
    assert list(instantiate(node)) == [[2, 4], [6]]


def yacs_config():
    return CfgNode(
        {
            "DATASETS": {"TRAIN": ("build_test",)},
            "DATALOADER": {
                "SAMPLER_TRAIN": "TrainingSampler",
                "FILTER_EMPTY_ANNOTATIONS": False,
                "ASPECT_RATIO_GROUPING": False,
                "NUM_WORKERS": 0,
            },
            "MODEL": {"KEYPOINT_ON": False, "LOAD_PROPOSALS": False},
            "SOLVER": {"IMS_PER_BATCH": 4},
        }
    )


@pytest.fixture
def registered():
    """Registers lists of records under names."""
    names = []

    def register(name, data, classes=("a", "b")):
        DatasetCatalog.register(name, lambda: data)
        MetadataCatalog.get(name).thing_classes = list(classes)
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_loaders_from_a_config_node(registered):
    registered("build_test", records())
    loader = build_detection_train_loader(yacs_config(), mapper=draw)
    assert [len(batch) for batch in take(loader, 3)] == [4, 4, 4]
    arguments = build_detection_train_loader.from_config(yacs_config(), mapper=draw)
    assert arguments["total_batch_size"] == 4 and len(arguments["dataset"]) == 12
    loader = build_detection_test_loader(yacs_config(), "build_test", mapper=draw)
    assert len(loader) == 12


def with_objects(*objects, **more):
    return {"annotations": [{"category_id": c, "iscrowd": crowd} for c, crowd in objects], **more}


def test_dataset_dicts(registered, caplog):
    full = [
        with_objects((0, 0), (1, 0)),
        with_objects((0, 1)),
        with_objects(),
        with_objects((1, 0)),
    ]
    name = registered("build_test", full)
    with caplog.at_level(logging.INFO):
        assert get_detection_dataset_dicts(name) == [full[0], full[3]]
    assert "Removed 2 images with no usable annotations. 2 images left." in caplog.text
    assert get_detection_dataset_dicts([name], filter_empty=False) == full
    other = registered("build_test_2", [with_objects((0, 0), image_id=1)])
    assert len(get_detection_dataset_dicts((name, other))) == 3
    third = registered("build_test_3", [with_objects((0, 0))], classes=("b", "a"))
    with pytest.raises(ValueError, match="'build_test' and 'build_test_3' have different metadata"):
        get_detection_dataset_dicts([name, third])
    assert len(get_detection_dataset_dicts([name, third], check_consistency=False)) == 3
    DatasetCatalog.register("build_test_4", lambda: [with_objects((0, 0))])
    try:  # nothing is known of its classes
        assert len(get_detection_dataset_dicts(["build_test_4", name])) == 3
    finally:
        DatasetCatalog.remove("build_test_4")


def test_dataset_dicts_that_are_no_use(registered):
    with pytest.raises(AssertionError, match="No dataset names"):
        get_detection_dataset_dicts([])
    with pytest.raises(KeyError, match="not registered"):
        get_detection_dataset_dicts("no such thing")
    with pytest.raises(AssertionError, match="Dataset 'build_test' is empty!"):
        get_detection_dataset_dicts(registered("build_test", []))
    with pytest.raises(AssertionError, match=r"No valid data found in build_test_2.*filter_empty"):
        get_detection_dataset_dicts(registered("build_test_2", [with_objects()]))
    wrong = registered("build_test_3", [with_objects((2, 0))])
    with pytest.raises(AssertionError, match="invalid category_id=2 for a dataset of 2 classes"):
        get_detection_dataset_dicts(wrong)


def test_torch_datasets_pass_through(registered):
    class One(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            return {"i": i}

    one = One()
    name = registered("build_test", one)
    assert get_detection_dataset_dicts(name) is one
    assert len(get_detection_dataset_dicts([name, name])) == 2


def test_images_with_few_keypoints():
    people = [
        {"annotations": [{"keypoints": [1, 1, v, 2, 2, w]}]} for v, w in ((0, 0), (2, 0), (1, 2))
    ]
    assert filter_images_with_few_keypoints(people, 1) == people[1:]
    assert filter_images_with_few_keypoints(people, 2) == people[2:]


def test_histogram(caplog):
    data = [with_objects((0, 0), (1, 0), (1, 0), (0, 1))]
    with caplog.at_level(logging.INFO):
        print_instances_class_histogram(data, ["cat", "a rather long name"])
    row = next(line for line in caplog.text.splitlines() if "cat " in line and "| 1" in line)
    assert "a rather lo.." in row and "| 2" in row
    assert "total" in caplog.text and "| 3" in caplog.text


def test_proposals(tmp_path):
    path = tmp_path / "proposals.pkl"
    boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    content = {"ids": [7], "boxes": [boxes], "objectness_logits": [np.array([0.1, 0.9])]}
    path.write_bytes(pickle.dumps(content))
    with_proposals, without = load_proposals_into_dataset(
        [{"image_id": 7}, {"image_id": 8}], str(path)
    )
    np.testing.assert_array_equal(with_proposals["proposal_boxes"], boxes[::-1])
    assert without == {"image_id": 8}


MAPPER = """
import numpy as np
from detectron2.data import MetadataCatalog

def mapper(record):
    metadata = MetadataCatalog.get("only_in_main")
    return metadata.thing_classes, metadata.f(1), np.random.randint(10**6)
"""


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_that_are_not_forked(tmp_path, monkeypatch, context):
    """They know the metadata of this process, and functions may be lambdas."""
    (tmp_path / "example_mapper.py").write_text(MAPPER)
    monkeypatch.syspath_prepend(tmp_path)
    import example_mapper

    MetadataCatalog.get("only_in_main").set(thing_classes=["a"], f=lambda x: x + 1)
    try:
        options = {
            "mapper": example_mapper.mapper,
            "collate_fn": lambda batch: tuple(batch),
            "aspect_ratio_grouping": False,
        }
        loader = train_loader(
            num_workers=1,
            multiprocessing_context=context,
            worker_init_fn=lambda worker_id: None,
            **options,
        )
        assert take(loader, 1) == take(train_loader(**options), 1)
    finally:
        MetadataCatalog.remove("only_in_main")
        del sys.modules["example_mapper"]
