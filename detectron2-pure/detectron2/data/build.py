"""From dataset names to data loaders."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.data._loading import (
    AspectRatios,
    SeededDataset,
    TrainBatches,
    TrainLoader,
    WorkerInit,
)
from detectron2.data._records import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    get_detection_dataset_dicts,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog  # noqa: F401  (projects import them here)
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    ToIterableDataset,  # noqa: F401
)
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.data.detection_utils import check_metadata_consistency  # noqa: F401
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import DataLoader, IterableDataset, Sampler

__all__ = [
    "TrainLoader",
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "filter_images_with_few_keypoints",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
    "trivial_batch_collator",
    "worker_init_reset_seed",
]


Mapper = Callable[[dict[str, Any]], Any]


def _batch_size_per_process(total_batch_size: int, single_gpu_batch_size: int | None) -> int:
    if single_gpu_batch_size:
        if total_batch_size:
            raise ValueError("Give total_batch_size or single_gpu_batch_size, not both.")
        return single_gpu_batch_size
    world_size = get_world_size()
    assert total_batch_size > 0 and total_batch_size % world_size == 0, (
        f"Total batch size ({total_batch_size}) must be divisible by the number of gpus "
        f"({world_size})."
    )
    return total_batch_size // world_size


def build_batch_data_loader(
    dataset: Any,
    sampler: Sampler[int] | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    seed: int | None = None,
    worker_init_fn: Callable[[int], None] | None = None,
    **kwargs: Any,
) -> Any:
    """A loader of batches for training.

    The batches do not depend on ``num_workers``, nor do random augmentations, as long as
    ``dataset`` is map-style.

    Args:
        dataset: map-style with ``sampler``, or iterable without; of mapped samples.
        sampler: of indices of this process.
        total_batch_size: over all processes.
        aspect_ratio_grouping: batches of only landscape or only portrait images. The sizes are
            those of the records in the ``DatasetFromList``; if these have none, then "width" and
            "height" of the mapped samples, which are then regrouped in the main process.
        num_workers: processes that make the batches.
        collate_fn: from a list of samples to a batch; the list itself by default.
        drop_last: leave out incomplete batches at the end of a finite stream.
        single_gpu_batch_size: batch size of one process, instead of ``total_batch_size``.
        seed: of random augmentations; the sampler's by default.
        worker_init_fn: called in every worker at its start.
        kwargs: further arguments of torch's DataLoader.

    Returns:
        An iterable of batches: a ``TrainLoader`` wherever the order can be known in advance.

    Raises:
        AssertionError: the batch size is not a multiple of the number of processes.
        ValueError: both batch sizes are given.
    """
    batch_size = _batch_size_per_process(total_batch_size, single_gpu_batch_size)
    collate = PicklableWrapper(collate_fn or trivial_batch_collator)
    options = {"num_workers": num_workers, **kwargs}
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "sampler must be None if dataset is IterableDataset"
        options["worker_init_fn"] = WorkerInit(worker_init_fn or worker_init_reset_seed)
        if not aspect_ratio_grouping:
            return DataLoader(
                dataset, batch_size=batch_size, drop_last=drop_last, collate_fn=collate, **options
            )
        return _grouped_samples(DataLoader(dataset, **options, **_UNBATCHED), batch_size, collate)
    assert sampler is not None, "A map-style dataset needs a sampler."
    options["worker_init_fn"] = WorkerInit(worker_init_fn)
    seeded = SeededDataset(dataset)
    groups = AspectRatios.of(dataset) if aspect_ratio_grouping else None
    if aspect_ratio_grouping and groups is None:
        singles = DataLoader(
            seeded,
            batch_sampler=TrainBatches(sampler, 1, None, drop_last, seed),
            collate_fn=operator.itemgetter(0),
            **options,
        )
        return _grouped_samples(singles, batch_size, collate)
    batches = TrainBatches(sampler, batch_size, groups, drop_last, seed)
    return TrainLoader(seeded, batch_sampler=batches, collate_fn=collate, **options)


def _as_it_is(sample: Any) -> Any:
    return sample


_UNBATCHED: dict[str, Any] = {"batch_size": None, "collate_fn": _as_it_is}


def _grouped_samples(
    samples: Iterable[Any], batch_size: int, collate: Callable[[list[Any]], Any]
) -> Any:
    return MapDataset(AspectRatioGroupedDataset(samples, batch_size), collate)


def _to_dataset(dataset: Any, mapper: Mapper | None) -> Any:
    """A dataset of mapped samples from a list or a dataset."""
    if isinstance(dataset, Sequence):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def _train_loader_from_config(
    cfg: Any,
    mapper: Mapper | None = None,
    *,
    dataset: Any = None,
    sampler: Sampler[int] | None = None,
) -> dict[str, Any]:
    """Arguments of ``build_detection_train_loader`` from a yacs config of detectron2."""
    if dataset is None:
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
            if cfg.MODEL.KEYPOINT_ON
            else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = _training_sampler(cfg, dataset)
    return {
        "dataset": dataset,
        "sampler": sampler,
        "mapper": DatasetMapper(cfg, True) if mapper is None else mapper,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


def _training_sampler(cfg: Any, dataset: Any) -> Sampler[int]:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset))
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return RepeatFactorTrainingSampler(factors)
    if name == "RandomSubsetTrainingSampler":
        return RandomSubsetTrainingSampler(len(dataset), cfg.DATALOADER.RANDOM_SUBSET_RATIO)
    raise ValueError(f"Unknown training sampler: {name}")


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: Any,
    *,
    mapper: Mapper | None,
    sampler: Sampler[int] | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """An endless loader for training.

    Which samples make a batch and how they are augmented is a function of the sampler's seed;
    ``num_workers`` has no part in it. The result has a method ``start_at(iteration)`` for
    going on in the middle (see ``TrainLoader``), unless the dataset is iterable.

    Args:
        dataset: list of records, or a torch Dataset, map-style or iterable.
        mapper: from a record to a sample; None if the dataset has samples already. A sample is
            replaced by another one where the mapper returns None.
        sampler: ``TrainingSampler`` by default; None for iterable datasets.
        total_batch_size: over all processes.
        aspect_ratio_grouping: see ``build_batch_data_loader``.
        num_workers: processes that make the batches.
        collate_fn: from a list of samples to a batch; the list itself by default.
        kwargs: further arguments of ``build_batch_data_loader`` and of torch's DataLoader.

    Returns:
        An iterable of ``list[dict]`` (or whatever ``collate_fn`` returns).
    """
    dataset = _to_dataset(dataset, mapper)
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "sampler must be None if dataset is IterableDataset"
    else:
        sampler = TrainingSampler(len(dataset)) if sampler is None else sampler
        assert isinstance(sampler, Sampler), f"Expect a Sampler but got {type(sampler)}"
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def _test_loader_from_config(
    cfg: Any, dataset_name: str | Sequence[str], mapper: Mapper | None = None
) -> dict[str, Any]:
    """Arguments of ``build_detection_test_loader`` from a yacs config of detectron2."""
    names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
    proposal_files = None
    if cfg.MODEL.LOAD_PROPOSALS:
        known = list(cfg.DATASETS.TEST)
        proposal_files = [cfg.DATASETS.PROPOSAL_FILES_TEST[known.index(n)] for n in names]
    dataset = get_detection_dataset_dicts(names, filter_empty=False, proposal_files=proposal_files)
    return {
        "dataset": dataset,
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": None if isinstance(dataset, IterableDataset) else InferenceSampler(len(dataset)),
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: Any,
    *,
    mapper: Mapper | None,
    sampler: Sampler[int] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> DataLoader:
    """A loader that has every sample once, over all processes.

    Args:
        dataset: list of records, or a torch Dataset, map-style or iterable.
        mapper: from a record to a sample; None if the dataset has samples already.
        sampler: ``InferenceSampler`` by default; None for iterable datasets.
        batch_size: of one process; the last batch may be smaller.
        num_workers: processes that make the batches.
        collate_fn: from a list of samples to a batch; the list itself by default.
        kwargs: further arguments of torch's DataLoader.

    Returns:
        A DataLoader of ``list[dict]`` (or whatever ``collate_fn`` returns).
    """
    dataset = _to_dataset(dataset, mapper)
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "sampler must be None if dataset is IterableDataset"
    elif sampler is None:
        sampler = InferenceSampler(len(dataset))
    init = WorkerInit(kwargs.pop("worker_init_fn", None))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=PicklableWrapper(collate_fn or trivial_batch_collator),
        worker_init_fn=init,
        **kwargs,
    )


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """A list of samples is a batch."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed all generators of a worker with torch's seed, which differs between workers."""
    seed_all_rng(torch.initial_seed() % 2**31)
