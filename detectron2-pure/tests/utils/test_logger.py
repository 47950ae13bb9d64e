import logging

import pytest
from detectron2.utils.logger import (
    create_small_table,
    log_every_n,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)


@pytest.fixture
def name(request):
    """A logger name of its own for each test."""
    name = f"detectron2_{request.node.name}"
    yield name
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def test_console_and_file(name, tmp_path, capsys):
    logger = setup_logger(tmp_path / "run", name=name, abbrev_name="x", color=False)
    logging.getLogger(name + ".sub").warning("hello")
    assert capsys.readouterr().out.endswith("x.sub WARNING: hello\n")
    # there before anything is closed
    assert (tmp_path / "run" / "log.txt").read_text().endswith("x.sub WARNING: hello\n")
    assert logger.propagate is False


def test_repeated_setup_does_not_repeat_lines(name, tmp_path, capsys):
    setup_logger(name=name)
    setup_logger(tmp_path, name=name, color=False)
    setup_logger(str(tmp_path), name=name, color=True)
    logging.getLogger(name).info("once")
    assert capsys.readouterr().out.count("once") == 1
    assert (tmp_path / "log.txt").read_text().count("once") == 1


def test_new_output_takes_over(name, tmp_path, capsys):
    setup_logger(tmp_path / "a", name=name).info("first")
    setup_logger(tmp_path / "b", name=name).info("second")
    assert "second" not in (tmp_path / "a" / "log.txt").read_text()
    assert "first" not in (tmp_path / "b" / "log.txt").read_text()
    assert capsys.readouterr().err == ""  # logging's complaints about closed files go there


def test_other_ranks_write_only_their_file(name, tmp_path, capsys):
    setup_logger(tmp_path / "train.log", distributed_rank=3, name=name).info("hello")
    assert capsys.readouterr().out == ""
    assert "hello" in (tmp_path / "train.log.rank3").read_text()


def test_default_abbreviation_is_d2(capsys):
    logger = logging.getLogger("detectron2")
    before = list(logger.handlers), logger.level, logger.propagate
    try:
        logger.handlers = []
        setup_logger(color=False)
        logging.getLogger("detectron2.engine").info("hi")
        logging.getLogger("detectron2_other").info("not ours")
    finally:
        logger.handlers, logger.level, logger.propagate = before
    assert capsys.readouterr().out.endswith("] d2.engine INFO: hi\n")


def test_log_first_n_by_caller_and_by_message(caplog):
    caplog.set_level(logging.INFO)
    for i in range(5):
        log_first_n(logging.INFO, f"caller {i}", n=2, name="a")
        log_first_n(logging.INFO, f"message {i % 2}", n=1, name="b", key="message")
    assert [r.getMessage() for r in caplog.records if r.name == "a"] == ["caller 0", "caller 1"]
    assert [r.getMessage() for r in caplog.records if r.name == "b"] == ["message 0", "message 1"]
    with pytest.raises(ValueError, match="'line'"):
        log_first_n(logging.INFO, "x", key="line")


def test_log_every_n(caplog):
    caplog.set_level(logging.INFO)
    for i in range(7):
        log_every_n(logging.INFO, str(i), n=3, name="a")
        log_every_n(logging.INFO, str(i), n=1, name="b")
    assert [r.getMessage() for r in caplog.records if r.name == "a"] == ["0", "3", "6"]
    assert len([r for r in caplog.records if r.name == "b"]) == 7


def test_log_every_n_seconds(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    clock = iter([0.0, 1.0, 2.5, 3.0, 5.0])
    monkeypatch.setattr("detectron2.utils.logger.time.monotonic", lambda: next(clock))
    for i in range(5):
        log_every_n_seconds(logging.INFO, str(i), n=2, name="a")
    assert [r.getMessage() for r in caplog.records] == ["0", "2", "4"]


def test_logger_name_is_the_callers_module(caplog):
    caplog.set_level(logging.INFO)
    log_first_n(logging.INFO, "x")
    assert caplog.records[0].name == __name__


def test_small_table():
    lines = create_small_table({"AP": 12.34567, "n": 3}).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["AP", "n"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["12.346", "3"]
