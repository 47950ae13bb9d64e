import logging
import re

import pytest
import torch
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
)
from torch import nn


class Recorder(DatasetEvaluator):
    def __init__(self, task="task"):
        self.task = task
        self.seen = ["not reset"]

    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen.append((inputs, outputs))

    def evaluate(self):
        return {self.task: {"count": len(self.seen)}}


class Doubler(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm1d(2).eval()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        assert not self.training and not torch.is_grad_enabled()
        return x * self.scale


@pytest.mark.parametrize("num_batches", [0, 1, 3, 12])
def test_every_batch_is_processed_in_order(num_batches):
    recorder = Recorder()
    batches = [torch.tensor(float(i)) for i in range(num_batches)]
    results = inference_on_dataset(Doubler(), batches, recorder)
    assert results == {"task": {"count": num_batches}}
    assert [(x.item(), y.item()) for x, y in recorder.seen] == [
        (i, 2.0 * i) for i in range(num_batches)
    ]


def test_several_evaluators_or_none():
    first, second = Recorder("a"), Recorder("b")
    results = inference_on_dataset(Doubler(), [torch.ones(1)], [first, second])
    assert results == {"a": {"count": 1}, "b": {"count": 1}}
    assert inference_on_dataset(Doubler(), [torch.ones(1)], None) == {}
    with pytest.raises(AssertionError, match="same key a"):
        DatasetEvaluators([Recorder("a"), Recorder("a")]).evaluate()


def test_evaluator_without_results():
    class Silent(Recorder):
        def evaluate(self):
            return None

    assert inference_on_dataset(Doubler(), [torch.ones(1)], Silent()) == {}


def test_results_come_as_they_are():
    class Number(DatasetEvaluator):
        def evaluate(self):
            return 3

    assert inference_on_dataset(Doubler(), [torch.ones(1)], Number()) == 3


def test_silent_evaluators_among_others():
    class Silent(Recorder):
        def evaluate(self):
            return None

    both = DatasetEvaluators([Silent(), Recorder("a")])
    assert list(both.evaluate()) == ["a"]


def test_plain_functions_can_be_evaluated():
    results = inference_on_dataset(lambda x: x + 1, [1, 2], Recorder())
    assert results == {"task": {"count": 2}}


def test_modes_return_also_after_an_error():
    model = Doubler().train()
    model.frozen.eval()
    with inference_context(model):
        assert not model.training
    assert model.training and not model.frozen.training
    with pytest.raises(TypeError):
        inference_on_dataset(model, ["not a tensor", "either"], Recorder())
    assert model.training and not model.frozen.training
    assert torch.is_grad_enabled()
    model.eval()
    with inference_context(model):
        pass
    assert not model.training


def test_callbacks():
    calls = []
    names = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: calls.append(name) for name in names}
    inference_on_dataset(Doubler(), [torch.ones(1)] * 2, None, callbacks)
    assert calls == ["on_start", *["before_inference", "after_inference"] * 2, "on_end"]


def test_progress_lines(caplog):
    with caplog.at_level(logging.INFO, logger="detectron2.evaluation"):
        inference_on_dataset(Doubler(), [torch.ones(1)] * 20, None)
    text = caplog.text
    assert "Start inference on 20 batches" in text
    number = r"\d+\.\d{4}"
    progress = (
        rf"Inference done (\d+)/20\. Dataloading: {number} s/iter\. Inference: {number} s/iter\. "
        rf"Eval: {number} s/iter\. Total: {number} s/iter\. ETA=\d+:\d\d:\d\d"
    )
    assert re.search(progress, text)
    end = r" time: 0:00:00 \(\d+\.\d{6} s / iter per device, on 1 devices\)"
    assert re.search("Total inference" + end, text)
    assert re.search("Total inference pure compute" + end, text)
