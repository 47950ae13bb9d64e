from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from detrex.checkpoint import CheckpointError
from detrex.engine import SetupError
from detrex.engine.errors import setup_errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("x.json does not exist"), "x.json does not exist"),
        (KeyError("no key 'a': did you mean 'b'?"), "no key 'a': did you mean 'b'?"),
        (CheckpointError("x.pth doesn't fit"), "x.pth doesn't fit"),
        (AssertionError(), "AssertionError without a message."),
    ],
)
def test_errors_become_sentences_and_keep_their_cause(error, message):
    with pytest.raises(SetupError) as raised, setup_errors():
        raise error
    assert str(raised.value) == message
    assert raised.value.__cause__ is error


def test_errors_of_the_config_library_too():
    with pytest.raises(SetupError, match="train"), setup_errors():
        _ = OmegaConf.create({"max_iter": "${train.max_iter}"}).max_iter


def test_mistakes_in_code_keep_their_traceback():
    with pytest.raises(TypeError), setup_errors():
        raise TypeError("unexpected keyword argument")


def test_a_setup_error_is_not_changed_again():
    with pytest.raises(SetupError) as raised, setup_errors(), setup_errors():
        raise ValueError("no")
    assert isinstance(raised.value.__cause__, ValueError)
