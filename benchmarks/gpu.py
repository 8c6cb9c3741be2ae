"""Training speed on a GPU: our learner beside the plain Hugging Face Trainer, on the same rows in one run.

A RoBERTa-base-sized encoder with random weights reads synthetic texts of 256 tokens in bfloat16; the speed after a warm-up,
in samples a second, and the share of the chip's dense bf16 peak that it comes to are printed and written to
`results/gpu.json`. It needs a CUDA device and says so where there is none; `--smoke` runs it on anything with a tiny encoder,
to see that it works, and writes nothing.

FLOPs of a training step are counted as 6 a parameter outside the embeddings and token, and 12 x layers x hidden x tokens a
token for attention (Chowdhery et al. 2022, appendix B).
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.report import write_results
from tagwright.batches import WORKERS
from tagwright.callbacks import network
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError, run
from tagwright.task import Task
from tagwright.training import build_learner, fit

# Dense bf16 (V100, T4: fp16) tensor peak in TFLOP/s by a part of the device's name, from NVIDIA's data sheets; first match.
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "H800": 989, "A100": 312, "A800": 312, "L40S": 362, "L40": 181, "L4": 121,
         "A10G": 70, "A10": 125, "A6000": 155, "RTX 4090": 165, "RTX 3090": 71, "V100": 125, "T4": 65}
SIZES = {"full": {"vocab_size": 50265},  # the configuration's defaults are those of RoBERTa-base
         "smoke": {"vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                   "intermediate_size": 128}}


def make_encoder(folder: Path, size: dict) -> None:
    """Random weights, and a tokenizer to whom each word is one token."""
    config = RobertaConfig(**size, max_position_embeddings=514, type_vocab_size=1, attention_probs_dropout_prob=0.0)
    words = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    words |= {f"w{index}": index for index in range(len(words), config.vocab_size)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    RobertaModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", model_max_length=512,
                            model_input_names=["input_ids", "attention_mask"]).save_pretrained(folder)


def make_dataset(rows: int, tokens: int, labels: int, words: int) -> Dataset:
    chance = random.Random(0)
    names = [f"label {index}" for index in range(labels)]
    parts = [pd.DataFrame({
        "text": [" ".join(f"w{chance.randrange(4, words)}" for _ in range(tokens - 2)) for _ in range(count)],
        "labels": [chance.sample(names, 2) for _ in range(count)],
    }) for count in (rows, 64, 0)]
    return Dataset(names, *parts, {})


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class StepTimes(Callback):
    """Seconds from the end of step `warmup` to the end of step `steps`, at which the training ends."""

    order = 1000

    def __init__(self, warmup: int, steps: int):
        self.warmup, self.steps = warmup, steps

    def after_batch(self):
        if self.train_iter == self.warmup:
            self.started = now()
        elif self.train_iter == self.steps:
            self.seconds = now() - self.started
            raise CancelFitException()


class TrainerTimes(TrainerCallback):
    """The same of the Trainer."""

    def __init__(self, warmup: int, steps: int):
        self.warmup, self.steps = warmup, steps

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.warmup:
            self.started = now()
        elif state.global_step == self.steps:
            self.seconds = now() - self.started


def time_ours(task: Task, dataset: Dataset, options: argparse.Namespace) -> tuple[float, int]:
    """Seconds of the timed steps, and the FLOPs that one sample takes."""
    learner, times = build_learner(task, dataset, bar=False), StepTimes(options.warmup, options.steps)
    encoder = network(learner).encoder
    weights = sum(value.numel() for name, value in encoder.named_parameters() if "embeddings" not in name)
    attention = 12 * encoder.config.num_hidden_layers * encoder.config.hidden_size * options.tokens
    fit(task, learner, [times])
    return times.seconds, (6 * weights + attention) * options.tokens


def time_trainer(folder: Path, dataset: Dataset, options: argparse.Namespace) -> float:
    """Seconds of the timed steps of the plain Trainer, with the settings that make it fast."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(list(dataset.train["text"]))["input_ids"]
    rows = [{"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": target}
            for tokens, target in zip(ids, dataset.targets(dataset.train), strict=True)]
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(dataset.labels), problem_type="multi_label_classification", attn_implementation="sdpa")
    times, cuda = TrainerTimes(options.warmup, options.steps), torch.cuda.is_available()
    arguments = TrainingArguments(
        folder / "trainer", per_device_train_batch_size=options.batch_size, max_steps=options.steps, bf16=cuda,
        use_cpu=not cuda, optim="adamw_torch_fused", torch_compile=options.compile,
        dataloader_num_workers=WORKERS if cuda else 0, dataloader_pin_memory=cuda,
        logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True)
    Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[times]).train()
    return times.seconds


def measure(options: argparse.Namespace) -> dict:
    size = SIZES["smoke" if options.smoke else "full"]
    peak = options.peak_tflops
    if torch.cuda.is_available() and not peak:
        device = torch.cuda.get_device_name()
        peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    dataset = make_dataset(options.steps * options.batch_size, options.tokens, options.labels, size["vocab_size"])
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        make_encoder(Path(folder), size)
        task = Task.load("cooking")
        task = task.model_copy(update={
            "model": task.model.model_copy(update={"encoder": folder, "max_length": options.tokens}),
            "training": task.training.model_copy(update={
                "epochs": 1, "soup": 1, "batch_size": options.batch_size, "compile": options.compile}),
        })
        seconds = {}
        seconds["tagwright"], flops = time_ours(task, dataset, options)
        seconds["Trainer"] = time_trainer(Path(folder), dataset, options)
    samples = (options.steps - options.warmup) * options.batch_size
    for name, value in seconds.items():
        rate = samples / value
        results[name] = {"samples_per_second": round(rate, 1), "tflops": round(rate * flops / 1e12, 2),
                         "share_of_peak": round(rate * flops / 1e12 / peak, 3) if peak else None}
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU", "peak_tflops": peak,
        "tokens": options.tokens, "batch_size": options.batch_size, "steps": options.steps - options.warmup,
        "compile": options.compile, "systems": results,
        "times_as_fast_as_trainer": round(seconds["Trainer"] / seconds["tagwright"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--labels", type=int, default=160)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--warmup", type=int, default=30, help="the first steps, which are not timed")
    parser.add_argument("--compile", action="store_true", help="torch.compile, for both")
    parser.add_argument("--peak-tflops", type=float, help="the chip's dense bf16 peak, where its name is not known here")
    parser.add_argument("--smoke", action="store_true", help="a tiny encoder on whatever there is, to see that this runs")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.smoke:
        raise TagwrightError("this benchmark needs a CUDA device, and torch sees none; --smoke shows that it runs")
    results = measure(options)
    print(results)
    if not options.smoke:
        write_results("gpu", results)


if __name__ == "__main__":
    run(main)
