"""From a trained model folder to ONNX: fp32, and int8 with one scale per output channel.

`quantize()` is the stage: it writes the complete, servable model folder and what each format costs and gains.
`add_labels()` gives such a folder labels that have no examples.
"""

import contextlib
import copy
import hashlib
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tqdm.auto import tqdm

from tagwright import metrics
from tagwright.bundle import Manifest, read_bundle, write_bundle
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.label_names import NameHead, same_name
from tagwright.model import EncoderError, TaggerModel, load_tagger_model, load_tokenizer
from tagwright.new_labels import fit_name_head
from tagwright.stage import RECORD, Stage, listing, read_record, recover, replacing, write_json
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import predict

OPSET = 20


def export_fp32(model: TaggerModel, path: Path, max_length: int) -> None:
    """Write the model as ONNX: inputs `input_ids`, `attention_mask` (batch, tokens), outputs `logits` (batch, labels) and
    `sentence_embedding` (batch, hidden), the text vectors that the head reads.

    Raises EncoderError where the exporter does not know what the encoder does.
    """
    model = copy.deepcopy(model).eval().float().cpu()
    model.encoder.set_attn_implementation("eager")  # plain softmax attention, which onnxruntime fuses
    ids = torch.ones(2, 8, dtype=torch.long)
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", min=2, max=max_length)}
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                _Outputs(model).eval(), (ids, ids.clone()),  # two tensors: one, given twice, would become one input
                dynamo=True, opset_version=OPSET, verbose=False, dynamic_shapes=(shape, shape),
                input_names=["input_ids", "attention_mask"], output_names=["logits", "sentence_embedding"],
            )
        except torch.onnx.OnnxExporterError as error:
            raise EncoderError(model.config.model_type, "torch cannot export this kind of encoder to ONNX: "
                               + str(error.__cause__ or error).strip().splitlines()[0]) from error
    if any(isinstance(size, int) for tensor in program.model.graph.inputs for size in tensor.shape):
        raise EncoderError(model.config.model_type, "torch exports this kind of encoder to ONNX for batches of one shape only")
    _store_once(program.model.graph)
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
    _einsums_to_products(proto.graph)
    columns = {tensor.name for tensor in proto.graph.initializer if list(tensor.dims)[1:] == [1]}
    row_scales = [node.name for node in proto.graph.node if node.op_type == "Gather" and node.input[0] in columns]
    with _quiet_exporter():
        quantize_dynamic(proto, path, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=row_scales)


def _store_once(graph: onnx_ir.Graph) -> None:
    """Make one weight of equal ones: each of ALBERT's layers would bring a copy of those that they share."""
    kept = {}
    for weight in list(graph.initializers.values()):
        values = weight.const_value.numpy()
        key = (values.dtype, values.shape, hashlib.sha256(values.tobytes()).digest())
        if (first := kept.setdefault(key, weight)) is not weight:
            weight.replace_all_uses_with(first)
            graph.initializers.pop(weight.name)


def _einsums_to_products(graph: onnx.GraphProto) -> None:
    """Write XLNet's linear layers as what they are: as Einsum with a weight of (hidden, heads, size), into the heads or out
    of them, the quantizer would leave them in fp32."""
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) == 3}
    nodes = []
    for node in graph.node:
        weight = weights.get(node.input[-1]) if node.op_type == "Einsum" else None
        equation = node.attribute[0].s.decode() if weight is not None else ""
        if equation not in ("ibh,hnd->ibnd", "ibnd,hnd->ibh"):
            nodes.append(node)
            continue
        into, (hidden, heads, size) = equation.endswith("ibnd"), weight.shape
        matrix = weight.reshape(hidden, heads * size)
        names = {part: f"{node.output[0]}_{part}" for part in ("matrix", "shape", "flat")}
        graph.initializer.extend([
            onnx.numpy_helper.from_array(np.ascontiguousarray(matrix if into else matrix.T), names["matrix"]),
            onnx.numpy_helper.from_array(np.array([0, 0, heads, size] if into else [0, 0, heads * size]), names["shape"]),
        ])
        start, end = (node.input[0], names["flat"]) if into else (names["flat"], node.output[0])
        product = onnx.helper.make_node("MatMul", [start, names["matrix"]], [end], name=f"{node.name}_product")
        source, target = (names["flat"], node.output[0]) if into else (node.input[0], names["flat"])
        reshape = onnx.helper.make_node("Reshape", [source, names["shape"]], [target], name=f"{node.name}_reshape")
        nodes += [product, reshape] if into else [reshape, product]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


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

    Labels that were added by name to what is there in `out_dir`, and are not trained now, are added again. Returns the run
    record: `metrics`, `bytes` and `ms_per_text` by format, `agreement` with PyTorch, `added` labels. Raises TagwrightError
    where an earlier stage's folder is missing or changed.
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
    takes_labels = task.kind == "multilabel"
    added = {label: text for label, text in _added(out_dir).items() if takes_labels and not same_name(label, manifest.labels)}

    with stage.writing() as folder:
        shutil.copytree(model_dir, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD))
        _export(model, folder, manifest.max_length)
        write_bundle(folder, manifest)  # complete enough to be loaded and measured
        taggers = {f"ONNX {precision}": Tagger.load(folder, precision) for precision in FILES}

        scored = dict(evaluated["metrics"])
        reference = metrics.probabilities(predict(model, tokenizer, texts, manifest.max_length, desc="PyTorch"), task.kind)
        agreement = {}
        for name, tagger in taggers.items():
            scores = tagger.scores(tqdm(texts, desc=name, disable=None, leave=False))
            scored[name] = metrics.summary(y_test, scores, thresholds, task.kind)
            agreement[name] = metrics.agreement(reference, scores, thresholds, task.kind)
        sizes = {"PyTorch": (folder / "model.safetensors").stat().st_size}
        sizes |= {f"ONNX {precision}": (folder / file).stat().st_size for precision, file in FILES.items()}
        manifest.metrics |= scored
        if takes_labels:
            rows = model.head.weight.detach().numpy()
            fit_name_head(dataset, rows, _embed_with(taggers["ONNX int8"])).save(folder / NameHead.FILE)
        write_bundle(folder, manifest)
        stage.record |= {"rows": {"test": len(texts)}, "metrics": scored, "agreement": agreement, "bytes": sizes,
                         "ms_per_text": _speed(model, tokenizer, manifest, taggers, texts), "added": added}
        if added:
            add_labels(folder, added)
    return stage.record


def add_labels(folder: Path, labels: Iterable[str] | Mapping[str, str]) -> Manifest:
    """Give a quantized model folder labels that have no examples, as `Tagger.with_labels` does but for good: their rows join
    the head, and every format is written anew. The folder changes as a whole at the end. Returns its new manifest.

    Raises TagwrightError as `Tagger.with_labels` does, and where the folder is not complete or cannot be written.
    """
    folder = Path(folder).resolve()
    recover(folder)
    sealed = read_bundle(folder).checksum
    tagger = Tagger.load(folder, "fp32").with_labels(labels)
    manifest, model = tagger.manifest, load_tagger_model(folder)
    head = torch.nn.Linear(model.config.hidden_size, len(manifest.labels))
    with torch.no_grad():
        head.weight.copy_(torch.cat([model.head.weight, torch.from_numpy(tagger.new_rows)]))
        head.bias.copy_(torch.cat([model.head.bias, torch.full((len(tagger.new_rows),), tagger.name_head.bias)]))
    model.head = head
    model.config.update({"id2label": dict(enumerate(manifest.labels)),
                         "label2id": {label: index for index, label in enumerate(manifest.labels)}})
    with replacing(folder) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns("onnx"))
        model.save_pretrained(partial)
        _export(model, partial, manifest.max_length)
        write_bundle(partial, manifest)
        if (partial / RECORD).is_file():  # so that its stage finds the folder as it expects it, and does not run again
            record = read_record(partial, f"tagwright quantize {manifest.task}")
            write_json(partial / RECORD, record | {"added": manifest.added, "files": listing(partial)})
        if read_bundle(folder).checksum != sealed:
            raise TagwrightError(f"{folder}: changed meanwhile; run the same command again")
    return manifest


def _export(model: TaggerModel, folder: Path, max_length: int) -> None:
    (folder / "onnx").mkdir()
    with tqdm(total=2, desc="export", unit=" files", disable=None) as bar:
        export_fp32(model, folder / FILES["fp32"], max_length)
        bar.update()
        export_int8(model, folder / FILES["int8"], max_length)
        bar.update()


def _embed_with(tagger: Tagger) -> Callable[[list[str], str], np.ndarray]:
    def embed(texts: list[str], what: str) -> np.ndarray:
        chunks = tqdm(range(0, len(texts), 256), desc=f"new labels: {what}", disable=None, leave=False)
        return np.concatenate([tagger.embeddings(texts[start : start + 256]) for start in chunks])

    return embed


def _added(folder: Path) -> dict[str, str]:
    """The labels that were added by name to a model folder, none where there is no whole one."""
    try:
        return read_bundle(folder).added
    except TagwrightError:
        return {}


def _speed(model, tokenizer, manifest, taggers: dict[str, Tagger], texts: list[str]) -> dict[str, float]:
    """Milliseconds a text, tokenising included, in batches of 32 by length, every model on the same test texts with the
    same number of threads."""
    runs = {"PyTorch": lambda texts: predict(model, tokenizer, texts, manifest.max_length)}
    runs |= {name: tagger.logits for name, tagger in taggers.items()}
    return {name: ms_per_text(run, texts) for name, run in runs.items()}


def ms_per_text(run: Callable[[list[str]], object], texts: list[str]) -> float:
    """Milliseconds a text: the best of three passes over the first 300 texts at most."""
    sample, seconds = texts[:300], []
    for _ in range(3):
        started = time.perf_counter()
        run(sample)
        seconds.append(time.perf_counter() - started)
    return round(1000 * min(seconds) / len(sample), 2)


class _Outputs(torch.nn.Module):
    """The model as a function of two tensors with two tensors as result."""

    def __init__(self, model: TaggerModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        vectors = self.model.pool(input_ids, attention_mask)
        return self.model.head(vectors), vectors
