import pytest
from detectron2.utils.develop import create_dummy_class, create_dummy_func


def test_dummy_class():
    cls = create_dummy_class("DeformConv", "detectron2._C", "Compile it.")
    text = "Cannot import 'detectron2._C', therefore 'DeformConv' is not available. Compile it."
    with pytest.raises(ImportError) as e:
        cls(1, x=2)
    assert str(e.value) == text
    with pytest.raises(ImportError, match="DeformConv"):
        _ = cls.from_config


def test_dummy_function():
    with pytest.raises(ImportError, match=r"'a, b', therefore 'f' is not available\.$"):
        create_dummy_func("f", ["a", "b"])(1)
