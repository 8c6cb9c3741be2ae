"""From a trained model folder to ONNX: fp32, and int8 with one scale per output channel.

`quantize()` is the stage: it writes the complete, servable model folder and what each format costs and gains.
"""

import contextlib
import copy
import logging
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tqdm.auto import tqdm

from tagwright import metrics
from tagwright.bundle import read_bundle, write_bundle
from tagwright.dataset import Dataset
from tagwright.model import TaggerModel, load_tagger_model, load_tokenizer
from tagwright.stage import RECORD, Stage, read_record
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import predict, sigmoid

OPSET = 20


def export_fp32(model: TaggerModel, path: Path, max_length: int) -> None:
    """Write the model as ONNX: inputs `input_ids`, `attention_mask` (batch, tokens), output `logits` (batch, labels)."""
    model = copy.deepcopy(model).eval().float().cpu()
    model.encoder.set_attn_implementation("eager")  # plain softmax attention, which onnxruntime fuses
    ids = torch.ones(2, 8, dtype=torch.long)
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", min=2, max=max_length)}
    with _quiet_exporter():
        program = torch.onnx.export(
            _Logits(model).eval(), (ids, ids.clone()),  # two tensors: one, given twice, would become one input
            dynamo=True, opset_version=OPSET, verbose=False, dynamic_shapes=(shape, shape),
            input_names=["input_ids", "attention_mask"], output_names=["logits"],
        )
    program.save(path)


def export_int8(model: TaggerModel, path: Path, max_length: int) -> None:
    """Write the model as int8 ONNX: weights with one scale per output channel, embeddings with one per row, activations
    with one per token in the feed-forward layers and the head, where they vary most, and one per batch elsewhere.

    On MiniLM one scale per weight matrix keeps a cosine of 0.969 to the fp32 logits, one per channel 0.994; the scale
    per token then halves what is left of the error.
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear) and child.in_features != child.out_features:
                setattr(parent, name, _PerTokenLinear(child))
            elif type(child) is torch.nn.Embedding:  # a subclass may compute something else
                setattr(parent, name, _PerRowEmbedding(child))
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        export_fp32(model, Path(scratch) / "model.onnx", max_length)
        proto = onnx.load(Path(scratch) / "model.onnx")
    del proto.graph.value_info[:]  # the exporter's shapes clash with those the quantizer infers
    columns = {tensor.name for tensor in proto.graph.initializer if list(tensor.dims)[1:] == [1]}
    row_scales = [node.name for node in proto.graph.node if node.op_type == "Gather" and node.input[0] in columns]
    with _quiet_exporter():
        quantize_dynamic(proto, path, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=row_scales)


class _PerRowEmbedding(torch.nn.Module):
    """An embedding table whose rows are scaled to ±1, and back when looked up: the same function in fp32, and with one
    scale for the whole table, which is all the quantizer gives it, each row keeps its full precision."""

    def __init__(self, embedding: torch.nn.Embedding):
        super().__init__()
        scale = embedding.weight.detach().abs().amax(-1, keepdim=True).clamp(min=1e-6)  # (rows, 1)
        self.table, self.scale = embedding.weight.detach() / scale, scale

    def forward(self, ids):
        return torch.nn.functional.embedding(ids, self.table) * torch.nn.functional.embedding(ids, self.scale)


class _PerTokenLinear(torch.nn.Module):
    """A linear layer whose input is scaled to ±1 token by token, and its output back: the same function in fp32, and
    when the input is quantized with one scale for all tokens, no token's outliers cost another its precision."""

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.linear = linear

    def forward(self, inputs):
        scale = inputs.abs().amax(-1, keepdim=True).clamp(min=1e-3)
        outputs = torch.nn.functional.linear(inputs / scale, self.linear.weight) * scale
        return outputs if self.linear.bias is None else outputs + self.linear.bias


@contextlib.contextmanager
def _quiet_exporter():
    """Keeps the exporter's and the quantizer's notes on their own internals from the reader."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def quantize(task: Task, data_dir: Path, model_dir: Path, evaluation_dir: Path, out_dir: Path, force: bool = False) -> dict:
    """The compression stage: the complete model folder with `onnx/`, every format scored and timed on the test rows.

    Returns the run record: `metrics`, `bytes` and `ms_per_text` by format, `agreement` with PyTorch. Raises
    TagwrightError where an earlier stage's folder is missing or changed.
    """
    dataset = Dataset.load(data_dir, task.name)
    read_record(model_dir, f"tagwright train {task.name}")
    evaluated = read_record(evaluation_dir, f"tagwright evaluate {task.name}")
    manifest = read_bundle(model_dir)
    stage = Stage("quantize", out_dir, [data_dir, model_dir, evaluation_dir], {"opset": OPSET, "int8": "per channel and token"})
    if not force and (record := stage.unchanged()):
        return record
    model, tokenizer = load_tagger_model(model_dir), load_tokenizer(model_dir)
    texts, y_test = list(dataset.test["text"]), dataset.targets(dataset.test)
    thresholds = np.array(manifest.thresholds, dtype=np.float32)
    stage.need_space(3 * (model_dir / "model.safetensors").stat().st_size)

    with stage.writing() as folder:
        shutil.copytree(model_dir, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD))
        (folder / "onnx").mkdir()
        with tqdm(total=2, desc="export", unit=" files", disable=None) as bar:
            export_fp32(model, folder / FILES["fp32"], manifest.max_length)
            bar.update()
            export_int8(model, folder / FILES["int8"], manifest.max_length)
            bar.update()
        write_bundle(folder, manifest)  # complete enough to be loaded and measured
        taggers = {f"ONNX {precision}": Tagger.load(folder, precision) for precision in FILES}

        scored = dict(evaluated["metrics"])
        reference = sigmoid(predict(model, tokenizer, texts, manifest.max_length, desc="PyTorch"))
        agreement = {}
        for name, tagger in taggers.items():
            scores = tagger.scores(tqdm(texts, desc=name, disable=None, leave=False))
            scored[name] = metrics.summary(y_test, scores, thresholds)
            agreement[name] = metrics.agreement(reference, scores, thresholds)
        sizes = {"PyTorch": (folder / "model.safetensors").stat().st_size}
        sizes |= {f"ONNX {precision}": (folder / file).stat().st_size for precision, file in FILES.items()}
        manifest.metrics |= scored
        write_bundle(folder, manifest)
        stage.record |= {"rows": {"test": len(texts)}, "metrics": scored, "agreement": agreement, "bytes": sizes,
                         "ms_per_text": _speed(model, tokenizer, manifest, taggers, texts)}
    return stage.record


def _speed(model, tokenizer, manifest, taggers: dict[str, Tagger], texts: list[str]) -> dict[str, float]:
    """Milliseconds a text, tokenising included, in batches of 32 by length: the best of three passes over at most 300
    test texts, every model on the same texts with the same number of threads."""
    sample = texts[:300]
    runs = {"PyTorch": lambda: predict(model, tokenizer, sample, manifest.max_length)}
    runs |= {name: (lambda tagger=tagger: tagger.logits(sample)) for name, tagger in taggers.items()}
    best = {}
    for name, run in runs.items():
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        best[name] = round(1000 * min(seconds) / len(sample), 2)
    return best


class _Logits(torch.nn.Module):
    """The model as a function of two tensors with one tensor as result."""

    def __init__(self, model: TaggerModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids, attention_mask).logits
