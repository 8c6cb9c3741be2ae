"""Every hand-over keeps the scores: PyTorch → ONNX fp32, int8 and 4 bits, singly and in padded batches."""

import json
import time

import numpy as np
import onnx
import pytest
import torch

from tagwright import metrics
from tagwright.dataset import SPLITS, Dataset
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.onnx_export import calibration_batches, export
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


@pytest.mark.parametrize(("precision", "points"), [("int8", 0.3), ("q4", 1.0)])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_small_weights_cost_little_f1(demo_run, dataset, texts, reference, precision, points, batch_size):
    tagger = Tagger.load(demo_run.root / "tagger", precision)
    y_true = np.concatenate([dataset.targets(getattr(dataset, split)) for split in SPLITS])
    fp32 = 1 / (1 + np.exp(-reference[len(ODD_TEXTS):])) >= tagger.thresholds
    small = tagger.scores(texts, batch_size)[len(ODD_TEXTS):] >= tagger.thresholds
    for score in (metrics.micro_f1, metrics.macro_f1):
        assert abs(score(y_true, fp32) - score(y_true, small)) <= points / 100


@pytest.mark.parametrize(("precision", "decisions"), [("fp32", 1.0), ("int8", 0.999), ("q4", 0.99)])
def test_decisions_agree_with_pytorch_on_odd_texts_too(demo_run, texts, reference, precision, decisions):
    tagger = Tagger.load(demo_run.root / "tagger", precision)
    expected = metrics.probabilities(reference, "multilabel")
    for part in (slice(None), slice(len(ODD_TEXTS))):
        found = metrics.agreement(expected[part], tagger.scores(texts[part]), tagger.thresholds)
        assert found["decisions"] >= decisions


@pytest.mark.parametrize("precision", FILES)
def test_the_scores_of_a_text_do_not_depend_on_its_neighbours(demo_run, texts, precision):
    tagger, short = Tagger.load(demo_run.root / "tagger", precision), texts[:80]
    alone = tagger.scores(short, 1)
    assert np.abs(tagger.scores(short, 32) - alone).max() < 0.001
    assert np.abs(tagger.scores(["x" * 400, *short[::-1]], 64)[:0:-1] - alone).max() < 0.001


def test_int8_is_small_and_really_quantized(demo_run):
    path = demo_run.root / "tagger" / FILES["int8"]
    assert path.stat().st_size <= 24e6
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("MatMulIntegerToFloat") == 6 * 6 + 1  # six products with weights a layer, and the head
    assert "Gemm" not in operators
    integers = [tensor for tensor in onnx.load(path).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert len(integers) == 6 * 6 + 1 + 2  # the tables of words and of positions


def test_q4_is_small_and_really_quantized(demo_run):
    path = demo_run.root / "tagger" / FILES["q4"]
    assert path.stat().st_size <= 16e6
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("MatMulNBits") == 6 * 6 + 1
    assert operators.count("GatherBlockQuantized") == 3  # words, positions, segments


def test_long_texts_keep_their_closing_token(demo_run, model):
    tagger = Tagger.load(demo_run.root / "tagger")
    ids = tagger._tokenizer.encode("word " * 5_000).ids
    assert len(ids) == tagger.manifest.max_length
    assert ids[-1] == model[1].sep_token_id


@pytest.mark.long
def test_exporting_again_gives_the_same_bytes(demo_run, model, dataset, tmp_path):
    export(model[0], tmp_path, 256, calibration_batches(model[1], list(dataset.train["text"]), 256))
    for file in FILES.values():
        assert (tmp_path / file).read_bytes() == (demo_run.root / "tagger" / file).read_bytes()


def test_latency_on_one_core(demo_run):
    tagger = Tagger.load(demo_run.root / "tagger", threads=1)
    title = "Did the Jedi Council ever consider training droids?"
    body = "The council met in a tower and argued about whether machines can learn patience. " * 15  # 210 words
    assert milliseconds(lambda: tagger.tag([title])) < 5
    assert milliseconds(lambda: tagger.tag([{"title": title, "body": body}])) < 40


@pytest.mark.long
def test_int8_is_at_least_two_and_a_half_times_as_fast_as_pytorch(demo_run, model):
    tagger = Tagger.load(demo_run.root / "tagger", threads=1)
    rows = map(json.loads, (demo_run.sample).read_text(encoding="utf8").splitlines())
    titles = [row["title"] for row in rows if row["title"]]
    titles = (titles + [f"{title} {title}" for title in titles] + titles[::-1])[:1000]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pytorch, int8 = [], []
    try:
        for _ in range(6):  # by turns, as the machine's speed changes with what else runs on it
            pytorch.append(milliseconds(lambda: predict(*model, titles, tagger.manifest.max_length), 1))
            int8.append(milliseconds(lambda: tagger.scores(titles), 1))
    finally:
        torch.set_num_threads(threads)
    assert min(pytorch) / min(int8) >= 2.5


def milliseconds(run, repeats: int = 20) -> float:
    """The best of several runs: what the code costs, not what else the machine does."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - started))
    return min(times)
