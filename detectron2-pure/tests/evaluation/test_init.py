import pytest
from detectron2.evaluation import CityscapesInstanceEvaluator, DatasetEvaluator


def test_left_out_evaluators_can_be_imported_but_not_made():
    """Scripts import them next to the one that they use."""
    assert issubclass(CityscapesInstanceEvaluator, DatasetEvaluator)
    text = "CityscapesInstanceEvaluator is not part of detectron2-pure; install"
    with pytest.raises(ImportError, match=text):
        CityscapesInstanceEvaluator("cityscapes_fine_instance_seg_val")
    with pytest.raises(ImportError, match="cannot import name 'Nope'"):
        from detectron2.evaluation import Nope  # noqa: F401
