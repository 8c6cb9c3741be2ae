"""Every hand-over keeps the scores: PyTorch → ONNX fp32 → ONNX int8, singly and in padded batches."""

import json
import time

import numpy as np
import onnx
import pytest
import torch

from tagwright import metrics
from tagwright.dataset import SPLITS, Dataset
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.onnx_export import _PerRowEmbedding, _PerTokenLinear, export_int8
from tagwright.tagger import FILES, Tagger
from tagwright.training import predict

ODD_TEXTS = [
    "", " ", "\n\n\n", "?", "a", "\u200b", "<b>bold</b> & <script>alert(1)</script>", "' OR 1=1 --", "{title} {0} %s",
    "Кто построил первый звездолёт?", "誰が最初の宇宙船を作りましたか", "من بنى أول سفينة فضاء؟",
    "מי בנה את הספינה", "Ποιος έφτιαξε το πλοίο;", "🚀🪐👽 " * 40, "e\u0301" * 50,
    "\ud83d lone surrogate", "x" * 10_000, "word " * 5_000, "robots " * 254,
    "robots " * 255, "\x00\x01\x02 control", "UPPER CASE TITLE", "ﬁligature ½ ² ™", "1234567890 " * 30, "http://example.org/a?b=c#d",
    "한국어 제목입니다",
    "ไทยไม่มีช่องว่าง", "a\u00a0b\u202fc\u2003d", "\u202eright to left\u202c", "…—–‘’“”", "ß İ ı ẞ", "\t\ttabs\t\t",
    "[CLS] [SEP] [MASK] [PAD]", "##ing ##ed", "über naïve café", "नमस्ते दुनिया", "𝕱𝖗𝖆𝖐𝖙𝖚𝖗", "\r\nwindows\r\nlines", "-" * 600,
]


@pytest.fixture(scope="module")
def dataset(demo_run):
    return Dataset.load(demo_run.root / "dataset")


@pytest.fixture(scope="module")
def texts(dataset):
    return ODD_TEXTS + [text for split in SPLITS for text in getattr(dataset, split)["text"]]


@pytest.fixture(scope="module")
def model(demo_run):
    folder = demo_run.root / "tagger"
    return load_tagger_model(folder), load_tokenizer(folder)


@pytest.fixture(scope="module")
def reference(demo_run, model, texts):
    tagger = Tagger.load(demo_run.root / "tagger", "fp32")
    return predict(*model, [tagger._text(text) for text in texts], tagger.manifest.max_length)


def test_there_are_at_least_500_texts(texts):
    assert len(texts) >= 500


@pytest.mark.parametrize("batch_size", [1, 32])
def test_onnx_fp32_agrees_with_pytorch_on_every_logit(demo_run, texts, reference, batch_size):
    logits = Tagger.load(demo_run.root / "tagger", "fp32").logits(texts, batch_size)
    assert np.abs(logits - reference).max() < 1e-4


def test_pytorch_gives_a_padded_text_the_scores_it_gives_it_alone(model, texts, reference):
    alone = predict(*model, ["", *texts[-40:]], 256, batch_size=1)
    assert np.abs(alone[1:] - reference[-40:]).max() < 1e-4


@pytest.mark.parametrize("batch_size", [1, 32])
def test_int8_costs_at_most_half_a_point_of_f1(demo_run, dataset, texts, reference, batch_size):
    tagger = Tagger.load(demo_run.root / "tagger", "int8")
    y_true = np.concatenate([dataset.targets(getattr(dataset, split)) for split in SPLITS])
    fp32 = 1 / (1 + np.exp(-reference[len(ODD_TEXTS):])) >= tagger.thresholds
    int8 = tagger.scores(texts, batch_size)[len(ODD_TEXTS):] >= tagger.thresholds
    assert abs(metrics.micro_f1(y_true, fp32) - metrics.micro_f1(y_true, int8)) <= 0.005
    assert abs(metrics.macro_f1(y_true, fp32) - metrics.macro_f1(y_true, int8)) <= 0.005


def test_int8_is_small_and_really_quantized(demo_run):
    path = demo_run.root / "tagger" / FILES["int8"]
    assert path.stat().st_size <= 24e6
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("MatMulInteger") == 6 * 6 + 1  # six products with weights a layer, and the head
    per_channel = [tensor for tensor in onnx.load(path).graph.initializer if tensor.name.endswith("_scale") and tensor.dims]
    assert len(per_channel) >= 6 * 6


def test_long_texts_keep_their_closing_token(demo_run, model):
    tagger = Tagger.load(demo_run.root / "tagger")
    ids = tagger._tokenizer.encode("word " * 5_000).ids
    assert len(ids) == tagger.manifest.max_length
    assert ids[-1] == model[1].sep_token_id


def test_exporting_again_gives_the_same_bytes(demo_run, model, tmp_path):
    export_int8(model[0], tmp_path / "again.onnx", 256)
    assert (tmp_path / "again.onnx").read_bytes() == (demo_run.root / "tagger" / FILES["int8"]).read_bytes()


@pytest.mark.parametrize("bias", [True, False])  # ModernBERT's feed-forward layers have none
def test_scales_per_token_and_per_row_change_nothing_in_fp32(bias):
    linear, embedding, ids = torch.nn.Linear(8, 16, bias=bias), torch.nn.Embedding(5, 8), torch.tensor([[0, 4, 2]])
    assert torch.allclose(_PerRowEmbedding(embedding)(ids), embedding(ids), atol=1e-6)
    assert torch.allclose(_PerTokenLinear(linear)(embedding(ids)), linear(embedding(ids)), atol=1e-5)


def test_latency_on_one_core(demo_run):
    tagger = Tagger.load(demo_run.root / "tagger", threads=1)
    title = "Did the Jedi Council ever consider training droids?"
    body = "The council met in a tower and argued about whether machines can learn patience. " * 15  # 210 words
    assert milliseconds(lambda: tagger.tag([title])) < 5
    assert milliseconds(lambda: tagger.tag([{"title": title, "body": body}])) < 40


def test_int8_is_at_least_twice_as_fast_as_pytorch(demo_run, model):
    """2.6 times on a machine of its own; beside another test process that shares its memory and caches, 2.4 has been seen."""
    tagger = Tagger.load(demo_run.root / "tagger", threads=1)
    rows = map(json.loads, (demo_run.sample).read_text(encoding="utf8").splitlines())
    titles = [row["title"] for row in rows if row["title"]]
    titles = (titles + [f"{title} {title}" for title in titles] + titles[::-1])[:1000]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pytorch, int8 = [], []
    try:
        for _ in range(3):  # by turns, as the machine's speed changes with what else runs on it
            pytorch.append(milliseconds(lambda: predict(*model, titles, tagger.manifest.max_length), 1))
            int8.append(milliseconds(lambda: tagger.scores(titles), 1))
    finally:
        torch.set_num_threads(threads)
    assert min(pytorch) / min(int8) >= 2


def milliseconds(run, repeats: int = 20) -> float:
    """The best of several runs: what the code costs, not what else the machine does."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - started))
    return min(times)
