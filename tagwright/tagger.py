"""Tags texts with an exported model: numpy, tokenizers and onnxruntime only. Every app uses this."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from tagwright.bundle import Manifest, read_bundle
from tagwright.decisions import decide, probabilities
from tagwright.errors import TagwrightError
from tagwright.label_names import DESCRIPTION_SHARE, NameHead, check_new_labels, spoken
from tagwright.text import compose, tidy

FILES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx", "q4": "onnx/model_q4.onnx"}  # the most exact first
MAX_BATCH_TOKENS = 2048  # padding included
TEXTS_A_THREAD = 16  # in a batch: more at once no longer fit into a core's cache


class Tagger:
    """A loaded model folder.

    >>> tagger = Tagger.load("data/work/scifi/best")                                # doctest: +SKIP
    >>> tagger.tag([{"title": "Who built the first robot?", "body": "In Asimov."}])  # doctest: +SKIP
    [[('isaac-asimov', 0.83), ('robots', 0.71)]]
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, session: onnxruntime.InferenceSession,
                 name_head: NameHead | None = None, new_rows: np.ndarray | None = None):
        self.manifest, self.labels = manifest, manifest.labels
        self.thresholds = np.array(manifest.thresholds, dtype=np.float32)  # (labels,)
        self.name_head, self.new_rows = name_head, new_rows  # (labels that `with_labels` added, hidden); None: none
        self._tokenizer, self._session = tokenizer, session

    @classmethod
    def load(cls, folder: str | Path, precision: str = "int8", threads: int | None = None) -> "Tagger":
        """Load a model folder; `precision` is one of FILES, `threads` None for as many as there are cores.

        Raises TagwrightError where the folder is no model folder or a file in it is missing or changed.
        """
        folder = Path(folder)
        manifest = read_bundle(folder)
        if precision not in FILES:
            raise TagwrightError(f"unknown precision {precision!r}; there are {', '.join(FILES)}")
        if FILES[precision] not in manifest.files:
            raise TagwrightError(f"{folder}: has no {FILES[precision]}; `tagwright quantize {manifest.task}` makes it")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_truncation(manifest.max_length)
        tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        session = onnxruntime.InferenceSession(
            folder / FILES[precision], options, providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # its CPU kernel is slower than the parts it replaces
        )
        name_head = NameHead.load(folder / NameHead.FILE) if NameHead.FILE in manifest.files else None
        return cls(manifest, tokenizer, session, name_head)

    def with_labels(self, labels: Iterable[str] | Mapping[str, str]) -> "Tagger":
        """A tagger that also gives `labels`, of which the model has seen no example, going by their names, or names with
        descriptions. This one stays as it is; the labels that it has score the same in both.

        Raises TagwrightError for a name that is empty, too long, given twice or there already, for a description that is
        longer than what the model reads, and where the model can take no new labels (multiclass: exactly one of the labels
        that it was trained to tell apart).
        """
        if self.manifest.kind == "multiclass":
            raise TagwrightError(f"the model of {self.manifest.task!r} gives each text exactly one of its {len(self.labels)} "
                                 "labels (multiclass): what sets a new one apart from them it can only learn from examples")
        if self.name_head is None:
            raise TagwrightError(f"the model folder has no {NameHead.FILE}, which new labels need; "
                                 f"`tagwright quantize {self.manifest.task}` makes it")
        labels = check_new_labels(labels, self.labels)
        by_name = [spoken(label) for label in labels]
        described = [f"{name}: {text}" if text else name for name, text in zip(by_name, labels.values(), strict=True)]
        for label, encoding in zip(labels, self._tokenizer.encode_batch([tidy(text) for text in described]), strict=True):
            if encoding.overflowing:
                raise TagwrightError(f"the name and description of {label!r} are longer than the {self.manifest.max_length} "
                                     "tokens that the model reads; shorten the description")
        name_rows, full_rows = (self.name_head.rows(self.embeddings(texts, batch_size=1)) for texts in (by_name, described))
        rows = (1 - DESCRIPTION_SHARE) * name_rows + DESCRIPTION_SHARE * full_rows
        manifest = replace(
            self.manifest, labels=[*self.labels, *labels], added=self.manifest.added | labels, checksum="",
            thresholds=[*self.manifest.thresholds, *[self.name_head.threshold] * len(labels)])
        rows = rows if self.new_rows is None else np.concatenate([self.new_rows, rows])
        return Tagger(manifest, self._tokenizer, self._session, self.name_head, rows)

    def tag(self, texts: Sequence[str | Mapping[str, str]], batch_size: int | None = None) -> list[list[tuple[str, float]]]:
        """For each text its labels above their thresholds with their scores, best first; of a multiclass model its one best.

        A text is a string, or a mapping with the task's fields (`manifest.fields`; a missing one counts as empty).
        """
        scores = self.scores(texts, batch_size)
        given = decide(scores, self.thresholds, self.manifest.kind)
        found = [np.flatnonzero(row) for row in given]
        return [[(self.labels[i], float(row[i])) for i in columns[np.argsort(-row[columns], kind="stable")]]
                for row, columns in zip(scores, found, strict=True)]

    def scores(self, texts: Sequence[str | Mapping[str, str]], batch_size: int | None = None) -> np.ndarray:
        """The probability of every label: float32, (texts, labels)."""
        return probabilities(self.logits(texts, batch_size), self.manifest.kind)

    def logits(self, texts: Sequence[str | Mapping[str, str]], batch_size: int | None = None) -> np.ndarray:
        """The model's raw outputs: float32, (texts, labels). Batches are formed by length, so that little is padding, and
        hold at most `batch_size` texts (None: TEXTS_A_THREAD for each thread) and MAX_BATCH_TOKENS tokens, so that memory is
        bounded."""
        if self.new_rows is None:
            return self._run(["logits"], texts, batch_size)[0]
        logits, vectors = self._run(["logits", "sentence_embedding"], texts, batch_size)
        return np.concatenate([logits, vectors @ self.new_rows.T + np.float32(self.name_head.bias)], axis=1)

    def embeddings(self, texts: Sequence[str | Mapping[str, str]], batch_size: int | None = None) -> np.ndarray:
        """The texts' vectors, of length √hidden, that the model's head reads: float32, (texts, hidden)."""
        return self._run(["sentence_embedding"], texts, batch_size)[0]

    def _run(self, outputs: list[str], texts: Sequence[str | Mapping[str, str]], batch_size: int | None) -> list[np.ndarray]:
        if isinstance(texts, str | Mapping):
            raise TypeError("texts must be a list of texts; wrap a single one: [text]")
        batch_size = batch_size or TEXTS_A_THREAD * self._session.get_session_options().intra_op_num_threads
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch([self._text(text) for text in texts])]
        widths = {output.name: output.shape[1] for output in self._session.get_outputs()}
        results = [np.zeros((len(ids), widths[name]), dtype=np.float32) for name in outputs]
        for batch in _batches(list(map(len, ids)), batch_size):
            longest = len(ids[batch[-1]])
            input_ids = np.full((len(batch), longest), self.manifest.pad_id, dtype=np.int64)
            attention_mask = np.zeros_like(input_ids)
            for row, index in enumerate(batch):
                input_ids[row, : len(ids[index])] = ids[index]
                attention_mask[row, : len(ids[index])] = 1
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            for result, found in zip(results, self._session.run(outputs, inputs), strict=True):
                result[batch] = found
        return results

    def _text(self, text: str | Mapping[str, str]) -> str:
        if isinstance(text, str):
            return tidy(text)
        if unknown := set(text) - set(self.manifest.fields):
            raise TagwrightError(f"unknown fields {sorted(unknown)}; this model reads {self.manifest.fields}")
        return compose(self.manifest.template, {name: text.get(name) or "" for name in self.manifest.fields})


def _batches(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of texts in batches of like length, shortest first, so that the last of a batch is its longest."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * lengths[index] > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
