import pytest
import torch
from detectron2.utils.tracing import assert_fx_safe, is_fx_tracing
from torch import fx, nn


class Checked(nn.Module):
    def forward(self, x):
        assert_fx_safe(x.min() > 0, "not positive")
        self.was_traced = is_fx_tracing()
        return x * 2


def test_assertions_are_skipped_in_a_trace_only():
    model = Checked()
    traced = fx.symbolic_trace(model)
    assert model.was_traced and not is_fx_tracing()
    assert traced(torch.tensor([-1.0])).item() == -2
    assert model(torch.tensor([1.0])).item() == 2
    with pytest.raises(AssertionError, match="not positive"):
        model(torch.tensor([-1.0]))
