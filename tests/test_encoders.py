"""Encoders of seven families take the whole road: training, ONNX, int8, Tagger, with the same scores at every hand-over.

The encoders are tiny and random (see `encoders.py`), so nothing here says how good a family is.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from encoders import FAMILIES, make_encoder
from hub import Hub
from safetensors.torch import load_file, save_file
from test_parity import ODD_TEXTS
from transformers import AutoConfig, AutoModel, AutoTokenizer, T5Config, T5Model

from tagwright import onnx_export
from tagwright.bundle import read_bundle, write_bundle
from tagwright.comparison import compare_models
from tagwright.dataset import Dataset
from tagwright.model import (
    EncoderError,
    TaggerModel,
    check_fit,
    load_tagger_model,
    load_tokenizer,
    longest_text,
    parameter_groups,
)
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import predict, train

pytestmark = pytest.mark.long

LENGTH = 48
CLS = {"bert", "xlnet"}  # the others by mean pooling; XLNet's CLS token is its last one


@pytest.fixture(scope="session")
def encoder(sample_folder, tmp_path_factory):
    """A family's encoder, made once: encoder("bert") is its folder."""
    texts = list(Dataset.load(sample_folder).train["text"])
    made = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = make_encoder(family, tmp_path_factory.mktemp("encoders") / family, texts)
        return made[family]

    return make


def task_on(folder: Path, pooling: str = "mean", **tables) -> Task:
    task = Task.load("scifi")
    model = {"encoder": str(folder), "pooling": pooling, "max_length": LENGTH}
    training = {"epochs": 1, "encoder_lr": 1e-3}
    return task.model_copy(update={"model": task.model.model_copy(update=model), "models": [],
                                   "training": task.training.model_copy(update=training)} | tables)


@pytest.fixture(scope="module", params=FAMILIES)
def road(request, encoder, sample_folder, tmp_path_factory):
    """A family's trained and exported model, what it was trained from, and its logits in PyTorch, (texts, labels)."""
    family, folder = request.param, tmp_path_factory.mktemp("roads") / request.param
    task = task_on(encoder(family), "cls" if family in CLS else "mean")
    record = train(task, sample_folder, folder, bar=False)
    manifest, model = read_bundle(folder), load_tagger_model(folder)
    tokenizer, rows = load_tokenizer(folder), list(Dataset.load(sample_folder).train["text"])
    onnx_export.export(model, folder, LENGTH, onnx_export.calibration_batches(tokenizer, rows, LENGTH))
    write_bundle(folder, manifest)
    tagger = Tagger.load(folder, "fp32")
    texts = [tagger._text(text) for text in [*ODD_TEXTS, *Dataset.load(sample_folder).test["text"]]]
    logits = predict(model, load_tokenizer(folder), texts, LENGTH)
    return SimpleNamespace(family=family, folder=folder, task=task, record=record, model=model, texts=texts, logits=logits)


def test_training_learns(road):
    """Even these find out within an epoch which labels are frequent, and something of the texts."""
    assert road.record["metrics"]["validation"]["micro_f1"] > 0.1
    spread = (road.logits - road.logits.mean(0)).std()
    assert spread > 0.05  # texts differ in their scores, or parity would say nothing


def test_pytorch_gives_a_padded_text_the_scores_it_gives_it_alone(road):
    alone = predict(road.model, load_tokenizer(road.folder), road.texts, LENGTH, batch_size=1)
    assert np.abs(alone - road.logits).max() < 1e-4


def test_the_tagger_reads_the_tokens_that_training_read(road):
    tokenizer, tagger = load_tokenizer(road.task.model.encoder), Tagger.load(road.folder, "fp32")
    expected = tokenizer(road.texts, truncation=True, max_length=LENGTH)["input_ids"]
    assert [encoding.ids for encoding in tagger._tokenizer.encode_batch(road.texts)] == expected
    assert max(map(len, expected)) == LENGTH
    assert tagger.manifest.pad_id == tokenizer.pad_token_id


@pytest.mark.parametrize("batch_size", [1, 32])
def test_onnx_fp32_agrees_with_pytorch(road, batch_size):
    logits = Tagger.load(road.folder, "fp32").logits(road.texts, batch_size)
    assert np.abs(logits - road.logits).max() < 1e-4


@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize(("precision", "least"), [("int8", 0.99), ("q4", 0.7)])  # what is random has little for 4 bits to keep
def test_small_weights_stay_close_to_pytorch(road, batch_size, precision, least):
    logits = Tagger.load(road.folder, precision).logits(road.texts, batch_size)
    centre = road.logits.mean(0)  # what all texts have in common is no achievement
    assert cosine(logits - centre, road.logits - centre) > least


def test_every_weight_of_the_network_is_quantized_and_stored_once(road):
    """ALBERT's layers share theirs; XLNet's attention is no nn.Linear, and ModernBERT's has no bias."""
    tensors = [tensor for tensor in onnx.load(road.folder / FILES["int8"]).graph.initializer if len(tensor.dims) > 1]
    numbers = [sum(int(np.prod(tensor.dims)) for tensor in tensors if tensor.data_type in kinds)
               for kinds in ((onnx.TensorProto.INT8,), (onnx.TensorProto.FLOAT,))]
    weights = sum(parameter.numel() for parameter in road.model.parameters() if parameter.dim() > 1)
    assert 0.97 * weights < numbers[0] < 1.03 * weights
    assert numbers[1] < 0.15 * weights  # the scales of the embeddings' rows


# --- one by one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_begins_with_its_own_weights_grouped_by_layer(family, encoder):
    model = TaggerModel.from_encoder(str(encoder(family)), ["a", "b"], "mean")
    saved = load_file(encoder(family) / "model.safetensors")
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, saved[name])
    embeddings, *layers, head = groups = parameter_groups(SimpleNamespace(hf_model=model))  # as blurr wraps it
    assert len(layers) == (1 if family == "albert" else model.config.num_hidden_layers)  # ALBERT's share their weights
    assert any(parameter is model.encoder.get_input_embeddings().weight for parameter in embeddings)
    assert {id(parameter) for parameter in head} == {id(model.head.weight), id(model.head.bias)}
    assert sorted(map(id, sum(groups, []))) == sorted(map(id, model.parameters()))
    assert min(map(len, groups)) > 0


def test_groups_part_table_and_layers_that_lie_in_one_child():
    model = TaggerModel(AutoConfig.for_model("opt", hidden_size=16, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2,
                                             word_embed_proj_dim=16, vocab_size=50, num_labels=3, pooling="mean"))
    groups = parameter_groups(model)
    assert len(groups) == 4
    assert sorted(map(id, sum(groups, []))) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_side_of_the_padding_does_not_matter_where_positions_are_relative(family, pooling, encoder):
    """For the others load_tokenizer pads at the right, as Tagger does, whatever the encoder's own habit."""
    model = TaggerModel.from_encoder(str(encoder(family)), ["a", "b"], pooling).eval()
    assert AutoTokenizer.from_pretrained(encoder(family)).padding_side == ("left" if family == "xlnet" else "right")
    tokenizer = load_tokenizer(encoder(family))
    pooled = {}
    for side in ("right", "left"):
        batch = tokenizer(["Who built the first robot?", "Mars"], padding=True, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            pooled[side] = model.pool(batch["input_ids"], batch["attention_mask"])
    relative = family in ("xlnet", "modernbert", "roberta", "distilroberta", "mpnet")  # these count from the first real token
    assert torch.allclose(pooled["right"], pooled["left"], atol=1e-4) == relative


def test_a_tokenizer_that_pads_and_cuts_at_the_left_does_so_at_the_right(encoder, tmp_path):
    folder = Path(shutil.copytree(encoder("bert"), tmp_path / "encoder"))
    change_json(folder / "tokenizer_config.json", padding_side="left", truncation_side="left")
    assert AutoTokenizer.from_pretrained(folder).truncation_side == "left"
    texts = ["Mars", "Who built the first robot that could lie to its builders, and in which story was it?"]
    usual, turned = load_tokenizer(encoder("bert")), load_tokenizer(folder)
    options = {"padding": True, "truncation": True, "max_length": 12}
    assert turned(texts, **options)["input_ids"] == usual(texts, **options)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_cls_pooling_takes_the_cls_token(family, encoder):
    model, tokenizer = TaggerModel.from_encoder(str(encoder(family)), ["a"], "cls").eval(), load_tokenizer(encoder(family))
    batch = tokenizer(["Who built the first robot?", "Mars"], padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        hidden = model.encoder(input_ids=ids, attention_mask=mask.float()).last_hidden_state
        expected = torch.nn.functional.normalize(hidden[ids == tokenizer.cls_token_id], dim=-1)
        assert torch.allclose(model.pool(ids, mask), expected * model.config.hidden_size**0.5, atol=1e-4)


@pytest.mark.parametrize(("family", "longest"), [("bert", 512), ("albert", 512), ("roberta", 512), ("mpnet", 512),
                                                 ("modernbert", 8192), ("xlnet", 10**30)])
def test_the_longest_text_is_known_where_the_tokenizer_does_not_say_it(family, longest, encoder):
    """RoBERTa's and MPNet's tables have 514 rows, of which two are no positions."""
    model, tokenizer = TaggerModel.from_encoder(str(encoder(family)), ["a"], "mean").eval(), load_tokenizer(encoder(family))
    tokenizer.model_max_length = 10**30  # as where tokenizer_config.json is silent
    assert longest_text(model, tokenizer) == longest
    ids = torch.full((1, min(longest, 600)), 10)
    with torch.no_grad():
        model(ids, torch.ones_like(ids))  # so many it does read
    if longest < 600:
        with pytest.raises(EncoderError, match="reads at most 512 tokens, but model.max_length is 513"):
            check_fit(model, tokenizer, family, 513)
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 513), 10), torch.ones(1, 513, dtype=torch.long))
    tokenizer.model_max_length = 100
    assert longest_text(model, tokenizer) == 100


def test_half_precision_weights_are_trained_in_full(encoder, tmp_path):
    AutoModel.from_pretrained(encoder("bert"), dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    model = TaggerModel.from_encoder(str(tmp_path), ["a"], "mean")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32


# --- what cannot be had, or does not fit -----------------------------------------------------------------------------


def no_folder(folder: Path):
    shutil.rmtree(folder)


def no_config(folder: Path):
    (folder / "config.json").unlink()


def pickled_weights(folder: Path):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def damaged_weights(folder: Path):
    (folder / "model.safetensors").write_bytes(b"x" * 1000)


def half_the_weights(folder: Path):
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "layer.1" not in name}, folder / "model.safetensors",
              metadata={"format": "pt"})


def another_shape(folder: Path):
    change_json(folder / "config.json", intermediate_size=128)


def own_code(folder: Path):
    auto_map = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    change_json(folder / "config.json", model_type="mine", auto_map=auto_map)
    (folder / "mine.py").write_text("raise SystemExit('code from a model folder was run')")


def another_network(folder: Path):
    T5Model(T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8, vocab_size=800)).save_pretrained(folder)


FAULTS = {
    no_folder: "neither a folder with a model nor a model that the Hugging Face hub gives",
    no_config: "has no config.json",
    pickled_weights: "no file named model.safetensors",
    damaged_weights: "header too large",
    half_the_weights: "lacks 16 of the weights that its config.json describes.*encoder.layer.1",
    another_shape: "lacks 6 of the weights.*or has them in another shape: encoder.layer.0.intermediate",
    own_code: "contains custom code",
    another_network: "a t5 is no encoder of texts alone",
}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_with_an_encoder_is_one_line(spoil, encoder, tmp_path):
    folder = Path(shutil.copytree(encoder("bert"), tmp_path / "encoder"))
    spoil(folder)
    with pytest.raises(EncoderError, match=f"{folder}.*{FAULTS[spoil]}") as raised:
        load_both(folder)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith(raised.value.reason)


def test_a_tokenizer_that_does_not_fit_is_noticed_before_training(encoder):
    model = TaggerModel.from_encoder(str(encoder("bert")), ["a"], "mean")
    tokenizer = load_tokenizer(encoder("bert"))
    check_fit(model, tokenizer, "bert", 512)
    tokenizer.pad_token = None
    with pytest.raises(EncoderError, match="no padding token"):
        check_fit(model, tokenizer, "bert", 64)
    other = load_tokenizer(encoder("modernbert"))
    with pytest.raises(EncoderError, match="knows 805 tokens, but the network only 800"):
        check_fit(model, other, "bert", 64)


def only_for_one_shape(model, ids, mask):
    return model.encoder.get_input_embeddings()(ids).mean(1) * torch.ones(len(ids), 1)  # len() gives a fixed number


def of_no_onnx_operator(model, ids, mask):
    return torch.lgamma(model.encoder.get_input_embeddings()(ids).mean(1))


@pytest.mark.parametrize(("pool", "fault"), [
    (only_for_one_shape, "for batches of one shape only"),
    (of_no_onnx_operator, "torch cannot export this kind of encoder to ONNX: .*lgamma"),
])
def test_a_network_that_cannot_be_exported_is_one_line(pool, fault, encoder, tmp_path, monkeypatch):
    model = TaggerModel.from_encoder(str(encoder("distilroberta")), ["a"], "mean")
    monkeypatch.setattr(TaggerModel, "pool", pool)
    with pytest.raises(EncoderError, match=f"'roberta': .*{fault}"):
        onnx_export.export_fp32(model, tmp_path / "model.onnx", LENGTH)
    assert not (tmp_path / "model.onnx").exists()


HUB_USER = """
import sys
from tagwright.model import EncoderError, TaggerModel, check_fit, load_tokenizer
for name in sys.stdin:
    try:
        tokenizer, model = load_tokenizer(name.strip()), TaggerModel.from_encoder(name.strip(), ["a", "b"], "mean")
        check_fit(model, tokenizer, name, 64)
        print(model.config.model_type, len(tokenizer), flush=True)
    except EncoderError as error:
        print(error, flush=True)
"""


def test_names_are_loaded_from_a_hub_and_then_from_its_cache(encoder, tmp_path):
    """A stand-in serves three of the families; the process then loses it."""
    families = ["bert", "xlnet", "modernbert"]
    for family in families:
        shutil.copytree(encoder(family), tmp_path / "hub" / "tiny" / family)
    shutil.copytree(encoder("bert"), tmp_path / "hub" / "tiny" / "late")
    settings = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with Hub(tmp_path / "hub") as hub:
        process = subprocess.Popen([sys.executable, "-c", HUB_USER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env=os.environ | settings | {"HF_ENDPOINT": hub.url})

        def load(name: str) -> str:
            process.stdin.write(name + "\n")
            process.stdin.flush()
            return process.stdout.readline()

        assert [load(f"tiny/{family}") for family in families] == ["bert 800\n", "xlnet 800\n", "modernbert 805\n"]
        assert any(path.endswith("/tiny/xlnet/resolve/main/model.safetensors") for path in hub.asked)
        assert "'tiny/none': neither a folder with a model nor" in load("tiny/none")
    try:
        assert load("tiny/bert") == "bert 800\n"
        started = time.time()
        assert "couldn't connect" in load("tiny/late")
        assert time.time() - started < 20  # the hub's own client would try for more than a minute
    finally:
        process.stdin.close()
        process.wait(timeout=60)


# --- several models of one task --------------------------------------------------------------------------------------


def test_models_are_compared_and_what_cannot_be_had_is_said(encoder, sample_folder, tmp_path):
    own, other = str(encoder("distilroberta")), str(encoder("bert"))
    task = task_on(own, models=["no-such/encoder", other, own])
    found = compare_models(task, sample_folder, tmp_path / "model", tmp_path / "models", bar=False)
    assert [row["encoder"] for row in found["rows"]] == [own, other]
    assert list(found["missing"]) == ["no-such/encoder"]
    assert found["missing"]["no-such/encoder"].startswith("neither a folder with a model nor")
    for row in found["rows"]:
        assert 1e3 < row["parameters"] < 1e6
        assert 1e4 < row["bytes"] < 1e6
        assert 0 < row["ms_per_text"] < 1000
        assert row["validation_int8"]["micro_f1"] == pytest.approx(row["validation"]["micro_f1"], abs=0.05)
    assert read_bundle(tmp_path / "model").encoder == own  # where the pipeline goes on
    folders = sorted((tmp_path / "models").glob("*/"))
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] in ([["model", "tagger"], ["tagger"]],
                                                                                    [["tagger"], ["model", "tagger"]])
    for folder in folders:
        assert len(Tagger.load(folder / "tagger").tag(["a robot"])) == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}
    assert compare_models(task, sample_folder, tmp_path / "model", tmp_path / "models", bar=False) == found
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}
    assert json.loads((tmp_path / "models" / "comparison.json").read_text()) == found


def test_a_task_whose_own_encoder_cannot_be_had_stops(encoder, sample_folder, tmp_path):
    task = task_on("no-such/encoder", models=[str(encoder("bert"))])
    with pytest.raises(EncoderError, match="no-such/encoder"):
        compare_models(task, sample_folder, tmp_path / "model", tmp_path / "models", bar=False)
    assert not (tmp_path / "models").exists()


def load_both(folder: Path):
    return load_tokenizer(folder), TaggerModel.from_encoder(str(folder), ["a"], "mean")


def change_json(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """The mean cosine of the rows of two matrices."""
    return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).mean())
