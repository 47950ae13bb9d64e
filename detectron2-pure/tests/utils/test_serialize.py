import copy
import pickle

import pytest
from detectron2.utils.serialize import PicklableWrapper


class Scale:
    factor = 3

    def __call__(self, x):
        return self.factor * x


def test_lambda_survives_pickle():
    offset = 5
    function = PicklableWrapper(lambda x, y=1: x + y + offset)
    restored = pickle.loads(pickle.dumps(function))
    assert restored(1, y=2) == 8


def test_acts_like_what_it_wraps():
    wrapped = PicklableWrapper(PicklableWrapper(Scale()))
    assert isinstance(wrapped._obj, Scale)
    assert wrapped.factor == 3 and wrapped(2) == 6
    with pytest.raises(AttributeError, match="nothing"):
        _ = wrapped.nothing


def test_copies():
    assert copy.deepcopy(PicklableWrapper(Scale()))(2) == 6
