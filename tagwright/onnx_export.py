"""From a trained model folder to ONNX: fp32, int8 and 4 bits.

`quantize()` is the stage: it writes the complete, servable model folder and what each format costs and gains.
`add_labels()` gives such a folder labels that have no examples.
"""

import contextlib
import copy
import functools
import hashlib
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from tagwright import hues, metrics, quantization
from tagwright.bundle import Manifest, added_labels, read_bundle, write_bundle
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.label_names import NameHead, same_name
from tagwright.model import EncoderError, TaggerModel, embed_names, load_tagger_model, load_tokenizer
from tagwright.new_labels import fit_name_head
from tagwright.stage import RECORD, Stage, listing, read_record, recover, replacing, write_json
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import predict

OPSET = 21  # the first with 4-bit integers
CALIBRATION_TEXTS, STRANGE_TEXTS = 512, 64
SMALL = {"int8": quantization.to_int8, "q4": quantization.to_q4}


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
    _hide_padding_faster(program.model.graph)
    program.save(path)


def export(model: TaggerModel, folder: Path, max_length: int, calibration: Iterable[Mapping[str, np.ndarray]],
           formats: Iterable[str] = tuple(FILES)) -> None:
    """Write `folder/onnx/`: the model in some of FILES' formats. `calibration` are `calibration_batches`, which all but fp32
    need.

    Raises EncoderError as `export_fp32`.
    """
    (folder / "onnx").mkdir(exist_ok=True)
    small = {name: make for name, make in SMALL.items() if name in formats}
    with (tempfile.TemporaryDirectory(dir=folder) as scratch,
          tqdm(total=1 + len(small), desc="export", unit=" files", disable=None) as bar):
        path = folder / FILES["fp32"] if "fp32" in formats else Path(scratch) / "model.onnx"
        export_fp32(model, path, max_length)
        bar.update()
        if not small:
            return
        graph = quantization.without_einsums(onnx.load(path))
        activations = quantization.calibrate(graph, calibration)
        for name, make in small.items():
            onnx.save(make(graph, activations), folder / FILES[name])
            bar.update()


def calibration_batches(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str],
                        max_length: int) -> list[dict[str, np.ndarray]]:
    """CALIBRATION_TEXTS of the texts, and STRANGE_TEXTS that are like none of them, so that what a user may type is in range
    too; drawn with a seed, in batches of 8 by length: `input_ids` and `attention_mask`."""
    random = np.random.default_rng(0)
    chosen = [texts[index] for index in random.permutation(len(texts))[:CALIBRATION_TEXTS]]
    by_length = sorted([*chosen, *_strange_texts(tokenizer, max_length, random)], key=len)
    options = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "np"}
    batches = (tokenizer(by_length[start : start + 8], **options) for start in range(0, len(by_length), 8))
    return [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in batches]


def _strange_texts(tokenizer: PreTrainedTokenizerBase, max_length: int, random: np.random.Generator) -> Iterator[str]:
    """An empty text, and random tokens of the vocabulary: one of them again and again, or 64 different ones."""
    vocabulary = sorted(tokenizer.get_vocab())
    yield ""
    for number in range(1, STRANGE_TEXTS):
        words = random.choice(vocabulary, 64 if number % 2 else 1)
        yield " ".join(np.resize(words, random.integers(1, max_length)))


def _store_once(graph: onnx_ir.Graph) -> None:
    """Make one weight of equal ones: each of ALBERT's layers would bring a copy of those that they share."""
    kept = {}
    for weight in list(graph.initializers.values()):
        values = weight.const_value.numpy()
        key = (values.dtype, values.shape, hashlib.sha256(values.tobytes()).digest())
        if (first := kept.setdefault(key, weight)) is not weight:
            weight.replace_all_uses_with(first)
            graph.initializers.pop(weight.name)


def _hide_padding_faster(graph: onnx_ir.Graph) -> None:
    """Encoders hide padding by adding the least float to its attention scores. Of that onnxruntime makes a denormal number,
    with which a softmax takes three to six times as long; e to the power of -50 is as good as nothing, and a normal one."""
    for weight in list(graph.initializers.values()):
        values = weight.const_value.numpy()
        if values.dtype == np.float32 and values.size == 1 and values.item() < -1e30:
            weight.const_value = onnx_ir.tensor(np.full_like(values, -50), name=weight.name)


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


def quantize(task: Task, data_dir: Path, model_dir: Path, evaluation_dir: Path, out_dir: Path, force: bool = False,
             formats: Sequence[str] = tuple(FILES)) -> dict:
    """The compression stage: the complete model folder with `onnx/`, each of `formats` scored and timed on the test rows.

    Labels that were added by name to what is there in `out_dir`, and are not trained now, are added again. Returns the run
    record: `metrics`, `bytes` and `ms_per_text` by format, `agreement` with PyTorch, `added` labels. Raises TagwrightError
    where an earlier stage's folder is missing or changed, and for a format that is not in FILES.
    """
    if unknown := [name for name in formats if name not in FILES]:
        raise TagwrightError(f"unknown format {unknown[0]!r}; there are {', '.join(FILES)}")
    dataset = Dataset.load(data_dir, task.name)
    read_record(model_dir, f"tagwright train {task.name}")
    evaluated = read_record(evaluation_dir, f"tagwright evaluate {task.name}")
    manifest = read_bundle(model_dir)
    stage = Stage("quantize", out_dir, [data_dir, model_dir, evaluation_dir],
                  {"opset": OPSET, "formats": [name for name in FILES if name in formats]})
    if not force and (record := stage.unchanged()):
        return record
    model, tokenizer = load_tagger_model(model_dir), load_tokenizer(model_dir)
    texts, y_test = list(dataset.test["text"]), dataset.targets(dataset.test)
    thresholds = np.array(manifest.thresholds, dtype=np.float32)
    stage.need_space(3 * (model_dir / "model.safetensors").stat().st_size)
    takes_labels = task.kind == "multilabel"
    added = {label: text for label, text in added_labels(out_dir).items()
             if takes_labels and not same_name(label, manifest.labels)}

    with stage.writing() as folder:
        shutil.copytree(model_dir, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD))
        batches = calibration_batches(tokenizer, list(dataset.train["text"]), manifest.max_length)
        export(model, folder, manifest.max_length, batches, formats)
        write_bundle(folder, manifest)  # complete enough to be loaded and measured
        taggers = {f"ONNX {precision}": Tagger.load(folder, precision) for precision in FILES if precision in formats}

        scored = dict(evaluated["metrics"])
        reference = metrics.probabilities(predict(model, tokenizer, texts, manifest.max_length, desc="PyTorch"), task.kind)
        agreement = {}
        for name, tagger in taggers.items():
            scores = tagger.scores(tqdm(texts, desc=name, disable=None, leave=False))
            scored[name] = metrics.summary(y_test, scores, thresholds, task.kind)
            agreement[name] = metrics.agreement(reference, scores, thresholds, task.kind)
        sizes = {"PyTorch": (folder / "model.safetensors").stat().st_size}
        sizes |= {name: (folder / FILES[name.removeprefix("ONNX ")]).stat().st_size for name in taggers}
        manifest.metrics |= scored
        if takes_labels:
            rows = model.head.weight.detach().numpy()
            embedder = taggers.get("ONNX int8", next(iter(taggers.values())))
            fit_name_head(dataset, rows, _embed_with(embedder)).save(folder / NameHead.FILE)
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
    before = read_bundle(folder)
    formats = [name for name in FILES if FILES[name] in before.files]
    tagger = Tagger.load(folder, formats[0]).with_labels(labels)  # the most exact that there is
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
        (partial / "onnx").mkdir()
        if "fp32" in formats:
            export_fp32(model, partial / FILES["fp32"], manifest.max_length)
        biases = np.full(len(tagger.new_rows), tagger.name_head.bias)
        for name in SMALL.keys() & formats:  # of which only the head changes: for the rest there are no calibration texts
            onnx.save(quantization.extend_head(onnx.load(folder / FILES[name]), tagger.new_rows, biases),
                      partial / FILES[name])
        if manifest.hues == "mapped":
            reasons = hues.build_map(manifest.added, functools.partial(embed_names, hues.ENCODER))
            hues.save_map(reasons | hues.load_map(partial / hues.MAP), partial / hues.MAP)
        write_bundle(partial, manifest)
        if (partial / RECORD).is_file():  # so that its stage finds the folder as it expects it, and does not run again
            record = read_record(partial, f"tagwright quantize {manifest.task}")
            write_json(partial / RECORD, record | {"added": manifest.added, "files": listing(partial)})
        if read_bundle(folder).checksum != before.checksum:
            raise TagwrightError(f"{folder}: changed meanwhile; run the same command again")
    return manifest


def _embed_with(tagger: Tagger) -> Callable[[list[str], str], np.ndarray]:
    def embed(texts: list[str], what: str) -> np.ndarray:
        chunks = tqdm(range(0, len(texts), 256), desc=f"new labels: {what}", disable=None, leave=False)
        return np.concatenate([tagger.embeddings(texts[start : start + 256]) for start in chunks])

    return embed


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
