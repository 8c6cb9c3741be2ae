"""Batches for training: texts are tokenised once, padded per batch, and put beside texts of like length."""

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from fastai.data import load
from fastai.data.block import DataBlock, MultiCategoryBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import IndexSplitter
from fastai.text.data import SortedDL
from fastai.torch_core import num_distrib, to_device
from transformers import PreTrainedTokenizerBase

from tagwright.blurr_compat import BatchTokenizeTransform, TextBlock
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.model import TaggerModel
from tagwright.task import Task

load.to_device = partial(to_device, non_blocking=True)  # from pinned memory; else each batch waits for the step before it

MULTIPLE = 16  # of which padded lengths are multiples: fewer shapes, for each of which torch keeps kernels in memory
WORKERS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())  # beside a GPU


def dataloaders(task: Task, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, model: TaggerModel) -> DataLoaders:
    """fastai's loaders of the training and validation rows, on blurr's TextBlock.

    A batch is ({"input_ids", "attention_mask"}, both (rows, tokens)), and 0/1 targets, (rows, labels). Among several
    processes each gets its share of every batch. Raises TagwrightError where a batch cannot be divided among them.
    """
    parts = [dataset.train, dataset.validation]
    tokens = [tokenizer(list(part["text"]), truncation=True, max_length=task.model.max_length)["input_ids"] for part in parts]
    lengths = [[len(ids) for ids in part] for part in tokens]
    ids = [np.array(ids, dtype=np.int32) for part in tokens for ids in part]
    targets = np.concatenate([dataset.targets(part) for part in parts])
    pad = PadTokens(model.config.model_type, model.config, tokenizer, model, include_labels=False,
                    max_length=task.model.max_length)
    block = DataBlock(
        blocks=(TextBlock(batch_tokenize_tfm=pad, dl_type=partial(ByLength, res=lengths[0])),
                MultiCategoryBlock(encoded=True, vocab=dataset.labels)),
        get_x=lambda row: ids[row], get_y=lambda row: targets[row], splitter=IndexSplitter(range(len(parts[0]), len(ids))),
    )
    batch_size, processes = task.training.for_rows(len(dataset.train)).batch_size, max(1, num_distrib())
    if batch_size % processes:
        raise TagwrightError(f"training.batch_size is {batch_size}, which cannot be divided among {processes} processes")
    loading = {"num_workers": WORKERS, "pin_memory": True} if torch.cuda.is_available() else {"num_workers": 0}
    return block.dataloaders(range(len(ids)), bs=batch_size // processes, val_bs=2 * batch_size // processes,
                             drop_last=False,  # fastai's default would drop the same few rows, the shortest, in every epoch
                             dl_kwargs=[{}, {"val_res": lengths[1]}], **loading)


class PadTokens(BatchTokenizeTransform):
    """blurr's batch transform for texts that are tokens already: it only pads them, on the tokenizer's side."""

    def encodes(self, samples):  # fastai reads annotations as types to dispatch on
        longest = max(len(ids) for ids, *_ in samples)
        width = min(-(-longest // MULTIPLE) * MULTIPLE, self.max_length)
        input_ids = np.full((len(samples), width), self.hf_tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for row, (ids, *_) in enumerate(samples):
            place = slice(width - len(ids), None) if self.hf_tokenizer.padding_side == "left" else slice(len(ids))
            input_ids[row, place], mask[row, place] = ids, 1
        inputs = zip(torch.from_numpy(input_ids), torch.from_numpy(mask), strict=True)
        return [({"input_ids": ids, "attention_mask": ones}, *sample[1:])
                for (ids, ones), sample in zip(inputs, samples, strict=True)]


class ByLength(SortedDL):
    """fastai's loader of like lengths. Among several processes it forms the batches that one process would, and orders
    the rows so that the equal pieces fastai's DistributedDL cuts hold each process's share of every batch."""

    def shuffle_fn(self, idxs) -> Iterator[int]:
        processes = max(1, num_distrib())
        share, self.bs = self.bs, self.bs * processes
        order = [int(index) for index in super().shuffle_fn(idxs)]
        whole, self.bs = self.bs, share
        order += order[: -len(order) % processes]
        batches = [order[start : start + whole] for start in range(0, len(order), whole)]
        return iter([index for process in range(processes) for batch in batches for index in batch[process::processes]])


def by_length(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[int]:
    """Tokens of each text, counted in one call (hundreds of times faster than one text at a time)."""
    return [len(ids) for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]] if texts else []
