"""The faster ways of a CPU: that training takes them, gives them back, and that the quick dropout is a dropout."""

import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from tiny import write_tiny
from torch import nn

from tagwright.cpu import SHORT, ByteDropout
from tagwright.dataset import Dataset
from tagwright.task import Task
from tagwright.training import build_learner, fit


@pytest.mark.parametrize(("max_length", "attention"), [(SHORT, "eager"), (SHORT + 1, "sdpa")])
def test_a_training_takes_the_faster_ways_and_gives_them_back(max_length, attention, tmp_path):
    task = Task.load(write_tiny(tmp_path, rows=60))
    task = task.model_copy(update={"model": task.model.model_copy(update={"max_length": max_length})})
    learner = build_learner(task, Dataset.load(tmp_path / "work" / "books" / "dataset"), bar=False)
    encoder, seen = learner.model.hf_model.encoder, []
    before = [type(module) for module in encoder.modules()]

    class Look(Callback):
        def after_batch(self):
            seen.append((encoder.config._attn_implementation, {type(module) for module in encoder.modules()}))
            raise CancelFitException

    fit(task, learner, [Look()])
    (used, kinds), = seen
    assert used == attention
    assert ByteDropout in kinds
    assert nn.Dropout not in kinds
    assert [type(module) for module in encoder.modules()] == before
    assert encoder.config._attn_implementation == "sdpa"
    learner.model.hf_model.save_pretrained(tmp_path / "saved")
    assert "eager" not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_quick_dropout_drops_its_share_and_keeps_the_mean(dtype):
    torch.manual_seed(0)
    dropout, values = ByteDropout(0.1), torch.ones(999, 1001, dtype=dtype, requires_grad=True)
    given = dropout(values)
    given.sum().backward()
    dropped = given.detach()
    assert dropped.dtype == dtype
    assert float((dropped == 0).float().mean()) == pytest.approx(26 / 256, abs=0.002)
    assert float(dropped.float().mean()) == pytest.approx(1, abs=0.005)
    assert float((dropped == 0).float().mean(0).std()) < 0.02  # no column fares better than another
    assert torch.equal(values.grad, dropped)
    assert not torch.equal(dropout(values), dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(values), dropped)
    assert dropout.eval()(values) is values
    assert ByteDropout(0.0)(values) is values
