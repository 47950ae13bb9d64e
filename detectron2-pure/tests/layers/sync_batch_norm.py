"""Run by test_batch_norm.py: two processes normalize as one does with all their images."""

import os
import tempfile

import torch
from detectron2.layers import get_norm
from torch import distributed, multiprocessing, nn
from torch.testing import assert_close


def run(rank, file):
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    compare(rank, 0.1)
    compare(rank, None)
    distributed.destroy_process_group()


def compare(rank, momentum):
    torch.manual_seed(0)
    images, target = torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4)
    mine = slice(0, 2) if rank == 0 else slice(2, 5)
    part, whole = images[mine].clone().requires_grad_(), images.clone().requires_grad_()
    norm, expected = get_norm("SyncBN", 3), nn.BatchNorm2d(3, momentum=momentum)
    norm.momentum = momentum
    for module in (norm, expected):
        module.weight.data = torch.tensor([1.0, 2, 3])
        module.bias.data = torch.tensor([1.0, 0, 3])
    for _ in range(2):
        ours, theirs = norm(part), expected(whole)
        (ours - target[mine]).square().sum().backward()
        (theirs - target).square().sum().backward()
        assert_close(ours, theirs[mine], atol=1e-5, rtol=1e-5)
    assert_close(part.grad, whole.grad[mine], atol=1e-4, rtol=1e-4)
    for name in ("weight", "bias"):
        grad = getattr(norm, name).grad
        distributed.all_reduce(grad)
        assert_close(grad, getattr(expected, name).grad, atol=1e-3, rtol=1e-4)
    for name, value in expected.named_buffers():
        assert_close(getattr(norm, name), value)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(run, (os.path.join(folder, "store"),), 2)
