import pytest
import torch
from detectron2.utils.memory import retry_if_cuda_oom


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError])
def test_retries_then_runs_on_cpu(error):
    devices = []

    class FakeCudaTensor:
        device = torch.device("cuda")

        def to(self, device):
            return torch.ones(2, device=device)

    def function(x, *, y):
        devices.append(x.device.type)
        if x.device.type == "cuda":
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return x + y

    result = retry_if_cuda_oom(function)(FakeCudaTensor(), y=2)
    assert devices == ["cuda", "cuda", "cpu"]
    assert result.tolist() == [3, 3]


def test_other_errors_pass():
    calls = []

    def function():
        calls.append(1)
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        retry_if_cuda_oom(function)()
    assert len(calls) == 1
