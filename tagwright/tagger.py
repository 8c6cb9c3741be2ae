"""Tags texts with an exported model: numpy, tokenizers and onnxruntime only. Every app uses this."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from tagwright.bundle import Manifest, read_bundle
from tagwright.errors import TagwrightError
from tagwright.text import compose, tidy

FILES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
MAX_BATCH_TOKENS = 2048  # padding included


class Tagger:
    """A loaded model folder.

    >>> tagger = Tagger.load("data/work/scifi/tagger")                              # doctest: +SKIP
    >>> tagger.tag([{"title": "Who built the first robot?", "body": "In Asimov."}])  # doctest: +SKIP
    [[('isaac-asimov', 0.83), ('robots', 0.71)]]
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, session: onnxruntime.InferenceSession):
        self.manifest, self.labels = manifest, manifest.labels
        self.thresholds = np.array(manifest.thresholds, dtype=np.float32)  # (labels,)
        self._tokenizer, self._session = tokenizer, session

    @classmethod
    def load(cls, folder: str | Path, precision: str = "int8", threads: int | None = None) -> "Tagger":
        """Load a model folder; `precision` is "int8" or "fp32", `threads` None for as many as there are cores.

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
        options.intra_op_num_threads = threads or _cores()
        session = onnxruntime.InferenceSession(
            folder / FILES[precision], options, providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # its CPU kernel is slower than the parts it replaces
        )
        return cls(manifest, tokenizer, session)

    def tag(self, texts: Sequence[str | Mapping[str, str]], batch_size: int = 32) -> list[list[tuple[str, float]]]:
        """For each text its labels above their thresholds with their scores, best first.

        A text is a string, or a mapping with the task's fields (`manifest.fields`; a missing one counts as empty).
        """
        scores = self.scores(texts, batch_size)
        return [[(self.labels[i], float(row[i])) for i in np.argsort(-row) if row[i] >= self.thresholds[i]] for row in scores]

    def scores(self, texts: Sequence[str | Mapping[str, str]], batch_size: int = 32) -> np.ndarray:
        """The probability of every label: float32, (texts, labels)."""
        logits = self.logits(texts, batch_size)
        return 1 / (1 + np.exp(-logits))

    def logits(self, texts: Sequence[str | Mapping[str, str]], batch_size: int = 32) -> np.ndarray:
        """The model's raw outputs: float32, (texts, labels). Batches are formed by length, so that little is padding, and
        hold at most `batch_size` texts and MAX_BATCH_TOKENS tokens, so that memory is bounded."""
        if isinstance(texts, str | Mapping):
            raise TypeError("texts must be a list of texts; wrap a single one: [text]")
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch([self._text(text) for text in texts])]
        logits = np.zeros((len(ids), len(self.labels)), dtype=np.float32)
        for batch in _batches(list(map(len, ids)), batch_size):
            longest = len(ids[batch[-1]])
            input_ids = np.full((len(batch), longest), self.manifest.pad_id, dtype=np.int64)
            attention_mask = np.zeros_like(input_ids)
            for row, index in enumerate(batch):
                input_ids[row, : len(ids[index])] = ids[index]
                attention_mask[row, : len(ids[index])] = 1
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            logits[batch] = self._session.run(["logits"], inputs)[0]
        return logits

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


def _cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
