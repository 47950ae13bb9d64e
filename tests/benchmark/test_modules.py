from __future__ import annotations

import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from torch import nn
from torchvision.ops import MLP

from detrex.benchmark import ModuleCounts, count_modules, module_table
from detrex.layers import MultiScaleDeformableAttention


class Net(nn.Module):
    """Convolutions, a list that is never called, a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1, bias=False)])
        self.body = MLP(4, [6, 4])
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        for conv in self.convs:
            x = conv(x).relu()
        return self.body(self.body(x.flatten(2).transpose(1, 2)))


def test_counts_are_those_of_fvcore():
    net, x = Net(), torch.rand(2, 3, 8, 10)
    counts = count_modules(net, lambda: net(x))
    flops = FlopCountAnalysis(net, x).unsupported_ops_warnings(False)
    activations = ActivationCountAnalysis(net, x).unsupported_ops_warnings(False)
    assert counts.flops[""] == flops.total() > 0
    assert counts.activations[""] == activations.total() > 0
    for name, count in flops.by_module().items():
        if name != "convs":  # fvcore, too, sees a list only when it is called
            assert counts.flops.get(name, 0) == count, name
            assert counts.activations.get(name, 0) == activations.by_module()[name], name
    assert counts.flops["convs"] == counts.flops["convs.0"] + counts.flops["convs.1"]
    assert sum(counts.operators.values()) == counts.flops[""]


def test_what_tracing_does_not_know_is_counted():
    attention = MultiScaleDeformableAttention(32, 4, num_levels=1, num_points=2, batch_first=True)
    query = torch.rand(1, 24, 32)
    points = torch.rand(1, 24, 1, 2)
    shapes = [(4, 6)]
    counts = count_modules(
        attention, lambda: attention(query, reference_points=points, spatial_shapes=shapes)
    )
    linear = 24 * 32 * (32 + 4 * 2 * 2 + 4 * 2 + 32)
    sampled = 24 * (4 * 2) * 8 * 4  # points of a query, channels of a head, cells of a point
    assert counts.flops[""] == linear + sampled
    assert counts.operators["ms_deform_attn"] == sampled
    assert counts.activations[""] == 24 * (32 + 4 * 2 * 2 + 4 * 2 + 32)


def test_encoder_layers_of_torch_are_counted_in_evaluation():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.rand(1, 5, 8)
    count = count_modules(layer, lambda: layer(x)).flops[""]
    assert count == 5 * 8 * (3 * 8 + 8 + 2 * 16) + 2 * 5 * 5 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_hooks_are_gone_and_no_gradients_are_kept():
    net, x = Net(), torch.rand(1, 3, 8, 10)
    kept = []
    count_modules(net, lambda: kept.append(net(x)))
    assert not kept[0].requires_grad
    for module in net.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    with pytest.raises(RuntimeError):
        count_modules(net, lambda: net(x[:, :2]))
    assert not any(module._forward_hooks for module in net.modules())


def test_the_table_has_a_row_per_module_down_to_its_depth():
    net, x = Net(), torch.rand(1, 3, 80, 100)
    counts = count_modules(net, lambda: net(x))
    lines = module_table(net, counts, depth=1).splitlines()
    assert [line.split()[0] for line in lines] == ["module", "Net", "convs", "body", "unused"]
    assert lines[2].split()[1:] == ["256", "0.000", "0.024"]
    deeper = module_table(net, counts, depth=2)
    assert "    0 " in deeper and "32" in deeper
    counts = ModuleCounts({"": 2.5e9}, {"": 3_000_000}, {})
    assert module_table(net, counts, depth=0).splitlines()[1].split()[2:] == ["2.500", "3.000"]
