"""Each loss against its plain formula, in float64 and cell by cell; far logits; and which task gets which loss."""

import numpy as np
import pytest
import torch
from conftest import write_task

from tagwright.errors import TagwrightError
from tagwright.losses import Asymmetric, CrossEntropy, Focal, SummedBCE, class_weights, loss_for
from tagwright.task import Task, Training

generator = np.random.default_rng(0)
LOGITS = generator.normal(0, 3, (40, 6))
TARGETS = (generator.random((40, 6)) < 0.3).astype(float)
CLASSES = np.eye(6)[generator.integers(6, size=40)]
WEIGHTS = np.array([0.5, 0.8, 1.0, 1.3, 2.0, 3.0])
CELLS = {  # loss -> what a cell of probability p costs where its label is right, and where it is wrong
    SummedBCE: (lambda p: -np.log(p), lambda p: -np.log(1 - p)),
    Focal: (lambda p: -((1 - p) ** 2) * np.log(p), lambda p: -(p**2) * np.log(1 - p)),
    Asymmetric: (lambda p: -np.log(p), lambda p: -(np.maximum(p - 0.05, 0) ** 4) * np.log(1 - np.maximum(p - 0.05, 0))),
}
TWO = torch.tensor([0.5, 3.0])
EVERY = [*(cls(weights) for cls in CELLS for weights in (None, TWO)), CrossEntropy(), CrossEntropy(TWO, focus=2.0)]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("cls", CELLS)
def test_a_multilabel_loss_is_its_formula_summed_over_labels(cls, weights):
    right, wrong = CELLS[cls]
    p = 1 / (1 + np.exp(-LOGITS))
    cells = np.where(TARGETS == 1, (1 if weights is None else weights) * right(p), wrong(p))
    loss = cls(None if weights is None else torch.from_numpy(weights).float())
    logits, targets = torch.from_numpy(LOGITS).float(), torch.from_numpy(TARGETS).float()
    assert loss(logits, targets, reduction="none").numpy() == pytest.approx(cells.sum(1), rel=1e-5)
    assert float(loss(logits, targets)) == pytest.approx(cells.sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("focus", [0.0, 2.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_multiclass_loss_is_its_formula(weights, focus):
    p = (np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True))[CLASSES == 1]
    rows = -((1 - p) ** focus) * np.log(p) * (1 if weights is None else weights[CLASSES.argmax(1)])
    loss = CrossEntropy(None if weights is None else torch.from_numpy(weights).float(), focus)
    assert loss(torch.from_numpy(LOGITS), torch.from_numpy(CLASSES), reduction="none").numpy() == pytest.approx(rows, rel=1e-4)
    assert float(loss(torch.from_numpy(LOGITS), torch.from_numpy(CLASSES))) == pytest.approx(rows.mean(), rel=1e-4)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_finite_however_far_the_logits_are(loss, dtype):
    for far in (80.0, 1000.0):
        logits = torch.tensor([[far, -far], [-far, far]], dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
        assert float(value.detach()) > 1  # the second row is as wrong as can be


@pytest.mark.parametrize("cls", [SummedBCE, Focal])
def test_a_label_that_is_surely_missed_still_pulls(cls):
    logits = torch.tensor([[-80.0]], requires_grad=True)
    cls()(logits, torch.ones(1, 1)).backward()
    assert float(logits.grad) == pytest.approx(-1, rel=1e-3)


def test_asymmetric_leaves_easy_negatives_alone():
    logits = torch.tensor([[-3.0, 0.0]], requires_grad=True)  # probabilities 0.047 and 0.5
    Asymmetric()(logits, torch.zeros(1, 2)).backward()
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] > 0


def test_weights_are_the_root_of_the_rarity_within_bounds():
    share = torch.tensor([0.4, 0.04, 0.01, 0.0025, 0.0001, 0.0])  # the median of those with rows is 0.01
    assert class_weights(share).tolist() == pytest.approx([0.5, 0.5, 1.0, 2.0, 3.0, 3.0])


@pytest.mark.parametrize(("kind", "loss", "cls", "focus"), [
    ("multilabel", "bce", SummedBCE, None), ("multilabel", "focal", Focal, None),
    ("multilabel", "asymmetric", Asymmetric, None),
    ("multiclass", "bce", CrossEntropy, 0), ("multiclass", "focal", CrossEntropy, 2),
])
def test_the_recipe_names_the_loss(kind, loss, cls, focus):
    found = loss_for(kind, Training(loss=loss, class_weights=True), torch.tensor([0.1, 0.4]))
    assert type(found) is cls
    assert found.weights.tolist() == pytest.approx([1.0, 0.5])
    assert getattr(found, "focus", None) == focus
    assert loss_for(kind, Training(loss=loss, class_weights=False), torch.tensor([0.1, 0.4])).weights is None


@pytest.mark.parametrize("key", [{"loss": "asymmetric"}, {"thresholds": "per_label"}])
def test_what_is_for_multilabel_only_is_refused_by_its_key(key, tmp_path):
    (name, value), = key.items()
    with pytest.raises(TagwrightError, match=rf"books\.toml: .*training\.{name} = \"{value}\" is for tasks whose kind is"):
        Task.load(write_task(tmp_path, "rows.jsonl", kind="multiclass", training=key))
    assert getattr(Task.load(write_task(tmp_path, "rows.jsonl", training=key)).training, name) == value
