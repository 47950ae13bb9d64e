import logging

import pytest


@pytest.fixture(autouse=True)
def fresh_loggers():
    """`default_setup` configures global loggers: take it back, so that logs can be captured."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [(list(x.handlers), x.level, x.propagate) for x in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
