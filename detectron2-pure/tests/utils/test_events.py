import json
import logging

import numpy as np
import pytest
import torch
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_storages_nest_and_close():
    assert not has_event_storage()
    with EventStorage() as outer:
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    with pytest.raises(AssertionError, match="inside a 'with EventStorage"):
        get_event_storage()


def test_storage_closes_after_an_exception():
    with pytest.raises(ValueError), EventStorage():
        raise ValueError
    assert not has_event_storage()


def test_smoothing_hint_must_stay():
    storage = EventStorage()
    storage.put_scalar("loss", 1.0)
    with pytest.raises(AssertionError, match="loss was put with a different smoothing_hint"):
        storage.put_scalar("loss", 1.0, smoothing_hint=False)


def test_history_is_bounded_but_its_mean_is_not():
    storage = EventStorage(max_history=10)
    values = np.arange(1000, dtype=float)
    for value in values:
        storage.put_scalar("loss", value)
        storage.step()
    history = storage.history("loss")
    assert [value for value, _ in history.values()] == list(values[-10:])
    assert history.global_avg() == pytest.approx(values.mean())
    with pytest.raises(KeyError, match="No history metric available for nothing"):
        storage.history("nothing")


def test_images_without_a_writer_do_not_pile_up():
    storage = EventStorage()
    for at in range(300):
        storage.iter = at
        storage.put_image("image", np.zeros((3, 1, 1), dtype=np.uint8))
        storage.put_histogram("values", torch.rand(3), bins=2)
    assert [at for _, _, at in storage._vis_data] == list(range(44, 300))
    assert [h["global_step"] for h in storage._histograms] == list(range(44, 300))


def test_latest_smooths_over_iterations_not_samples():
    storage = EventStorage()
    for at in range(20):
        storage.iter = at
        storage.put_scalar("each", at)
        if at % 5 == 4:
            storage.put_scalar("fifth", at)
        storage.put_scalar("raw", at, smoothing_hint=False)
    latest = storage.latest_with_smoothing_hint(10)
    # iterations 10..19, and the two samples 14 and 19 that fall among them
    assert latest == {"each": (14.5, 19), "fifth": (16.5, 19), "raw": (19.0, 19)}
    assert storage.count_samples("fifth", 10) == 2


def test_name_scope_is_left_after_an_exception():
    storage = EventStorage()
    with pytest.raises(ValueError), storage.name_scope("head"):
        storage.put_scalar("loss", 1.0)
        raise ValueError
    storage.put_scalar("loss", 2.0)
    assert storage.latest() == {"head/loss": (1.0, 0), "loss": (2.0, 0)}


def test_json_writer_one_sorted_line_per_iteration(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(path)
        for at in range(60):
            if at % 17 == 0:
                storage.put_scalar("b", at, smoothing_hint=False)
            storage.put_scalar("z", at, smoothing_hint=False)
            storage.put_scalar("a", -at, smoothing_hint=False)
            if at % 20 == 19:
                writer.write()
                last = path.read_text().splitlines()[-1]  # flushed: visible at once
                assert list(json.loads(last)) == ["a", "iteration", "z"]
            storage.step()
        writer.close()
    lines = read_lines(path)
    assert [line["iteration"] for line in lines] == [17, 19, 34, 39, 51, 59]
    assert [line.get("b") for line in lines] == [17, None, 34, None, 51, None]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ('{"iteration": 1}\n{"iteration": 2, "los', [1]),
        ('{"iteration": 1}\n{"iteration": 2}', [1, 2]),
        ('{"iter', []),
        ('{"iteration": 1}\n', [1]),
        ("", []),
    ],
)
def test_json_writer_repairs_a_half_written_line(tmp_path, content, kept):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with EventStorage(start_iter=7) as storage:
        writer = JSONWriter(path)
        storage.put_scalar("loss", 1.0)
        writer.write()
        writer.close()
    assert [line["iteration"] for line in read_lines(path)] == [*kept, 7]


def test_tensorboard_writer_is_lazy_and_writes(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "tb"
    TensorboardXWriter(folder).close()
    assert not folder.exists()
    with EventStorage() as storage:
        writer = TensorboardXWriter(folder)
        storage.iter = 3
        storage.put_scalar("loss", 0.25)
        storage.put_image("image", torch.zeros(3, 4, 5))
        storage.put_histogram("weights", torch.arange(10.0), bins=5)
        writer.write()
        writer.close()
        assert storage._vis_data == [] and storage._histograms == []
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.25)]
    assert events.Images("image")[0].width == 5
    assert sum(events.Histograms("weights")[0].histogram_value.bucket) == 10


def printed(caplog, storage, *writers):
    logger = logging.getLogger("detectron2.utils.events")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger.name)
    caplog.clear()
    try:
        for writer in writers:
            writer.write()
    finally:
        logger.removeHandler(caplog.handler)
    return [record.getMessage() for record in caplog.records]


def test_printer_line(caplog):
    with EventStorage() as storage:
        for at in range(10):
            storage.iter = at
            storage.put_scalars(total_loss=at, time=2.0, data_time=0.5)
            storage.put_scalar("lr", 1e-4, smoothing_hint=False)
            storage.put_scalar("[metric]scale", 8.0)
            storage.put_scalar("other", 8.0)
        (line,) = set(printed(caplog, storage, CommonMetricPrinter(100)))
        assert line == (
            " eta: 0:03:00  iter: 9  total_loss: 4.5  [metric]scale: 8  "
            "time: 2.0000  last_time: 2.0000  data_time: 0.5000  last_data_time: 0.5000  lr: 0.0001"
        ) + (line[line.index("  max_mem") :] if torch.cuda.is_available() else "")
        assert storage.latest()["eta_seconds"] == (180.0, 9)
        assert "eta" not in printed(caplog, storage, CommonMetricPrinter())[0]


def test_printer_is_silent_after_the_end(caplog):
    with EventStorage() as storage:
        storage.iter = 10
        storage.put_scalar("AP", 1.0, smoothing_hint=False)
        assert printed(caplog, storage, CommonMetricPrinter(10)) == []


def test_printer_without_iteration_times_uses_the_clock(caplog):
    with EventStorage() as storage:
        writer = CommonMetricPrinter(100)
        first = printed(caplog, storage, writer)[0]
        storage.iter = 5
        second = printed(caplog, storage, writer)[0]
    assert "eta" not in first and "lr: N/A" in first
    assert second.startswith(" eta: 0:00:00")
