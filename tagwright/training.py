"""Fine-tuning with fastai and blurr: `build_learner()`, `fit()`, and `train()`, the stage that does it all.

The default recipe and why: logits are scored by binary cross-entropy summed (not averaged) over labels, because an
average over hundreds of mostly-zero targets has almost no gradient; the head learns faster than the encoder; one-cycle
anneals over few epochs, because longer runs overfit; the epoch with the best validation micro-F1 is the one kept.
"""

import copy
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import LRFinder, valley
from fastai.data.block import DataBlock, MultiCategoryBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import ColReader, ColSplitter
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.text.data import SortedDL
from fastai.torch_core import set_seed
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from tagwright import metrics
from tagwright.blurr_compat import BaseModelCallback, BaseModelWrapper, TextBlock, blurr_splitter
from tagwright.bundle import Manifest, write_bundle
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.model import TaggerModel, load_tokenizer
from tagwright.stage import Stage, package_versions
from tagwright.task import Task


class SummedBCE:
    """Binary cross-entropy summed over labels, averaged over rows."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none").sum(1)
        return loss.mean() if reduction == "mean" else loss

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def decodes(self, logits: torch.Tensor) -> torch.Tensor:
        return logits > 0


def build_learner(task: Task, dataset: Dataset, bar: bool = True) -> Learner:
    """A fastai Learner on blurr's blocks, ready to fit, its head initialised from the training rows.

    Raises TagwrightError where the encoder cannot be loaded.
    """
    set_seed(task.training.seed, reproducible=True)
    tokenizer = load_tokenizer(task.model.encoder)
    if task.model.max_length > tokenizer.model_max_length:
        raise TagwrightError(f"model.max_length is {task.model.max_length}, but {task.model.encoder!r} reads at most "
                             f"{tokenizer.model_max_length} tokens")
    model = TaggerModel.from_encoder(task.model.encoder, dataset.labels, task.model.pooling)
    share = torch.from_numpy(dataset.targets(dataset.train).mean(0))
    model.init_head(tokenizer, share, from_names=task.training.head_init == "label_names")
    learner = Learner(
        _dataloaders(task, dataset, tokenizer, model), BaseModelWrapper(model), loss_func=SummedBCE(), splitter=blurr_splitter,
        opt_func=partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True)), wd=task.training.weight_decay,
        cbs=[BaseModelCallback, BestEpoch(task.training.patience)],
    )
    learner.remove_cb(ProgressCallback)
    learner.add_cbs([Progress()] * bar + [BF16()] * has_bf16())
    return learner


def fit(task: Task, learner: Learner) -> pd.DataFrame:
    """Train by one-cycle with discriminative learning rates; the learner keeps the weights of its best epoch.

    Returns the history: one row an epoch with train_loss, valid_loss, micro_f1, p_at_1, r_at_5.
    """
    recipe = task.training.for_rows(len(learner.dls.train_ds))
    groups = len(blurr_splitter(learner.model))
    rates = [recipe.encoder_lr] * (groups - 1) + [recipe.head_lr]
    with learner.no_logging():  # Progress prints the epochs
        learner.fit_one_cycle(recipe.epochs, lr_max=rates)
    return pd.DataFrame(learner.best_epoch.history)


def train(task: Task, data_dir: Path, out_dir: Path, force: bool = False, bar: bool = True) -> dict:
    """The training stage: fine-tune on a cleaned data set, choose the threshold on its validation rows, write the model
    folder (`model.safetensors`, `config.json`, `tokenizer.json`, `tagwright.json`, `README.md`); returns the run record.

    Raises TagwrightError where the data set is missing or the encoder cannot be loaded.
    """
    dataset = Dataset.load(data_dir, task.name)
    settings = task.model_dump(include={"title", "kind", "input", "model", "training", "demo"})
    stage = Stage("train", out_dir, [data_dir], settings)
    if not force and (record := stage.unchanged()):
        return record
    learner = build_learner(task, dataset, bar)
    stage.need_space(sum(value.nbytes for value in learner.model.state_dict().values()) + 10_000_000)
    started = time.time()
    history = fit(task, learner)
    seconds = time.time() - started
    model, tokenizer = learner.model.hf_model, learner.dls.before_batch[0].hf_tokenizer
    y_true = dataset.targets(dataset.validation)
    scores = sigmoid(predict(model, tokenizer, list(dataset.validation["text"]), task.model.max_length))
    threshold = metrics.best_threshold(y_true, scores)
    validation = metrics.summary(y_true, scores, threshold)

    with stage.writing() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_bundle(folder, Manifest(
            task=task.name, title=task.title, kind=task.kind, labels=dataset.labels,
            thresholds=[threshold] * len(dataset.labels), fields=task.input.fields, template=task.input.template,
            max_length=task.model.max_length, pad_id=tokenizer.pad_token_id, encoder=task.model.encoder,
            examples=task.demo.examples, metrics={"validation": validation}, versions=package_versions(),
        ))
        stage.record |= {
            "rows": {"train": len(dataset.train), "validation": len(dataset.validation)}, "seed": task.training.seed,
            "recipe": task.training.for_rows(len(dataset.train)).model_dump(), "bf16": has_bf16(),
            "train_seconds": round(seconds, 1), "threshold": threshold,
            "metrics": {"validation": validation}, "history": history.round(4).to_dict("records"),
        }
    return stage.record


def find_learning_rate(learner: Learner, steps: int = 100) -> tuple[float, pd.DataFrame]:
    """fastai's learning-rate range test over `steps` batches: the suggested rate (the "valley" rule) and the curve (lr, loss).

    The weights are put back as they were, from memory: fastai's own `lr_find` would save and load a pickle.
    """
    finder = InMemoryLRFinder(end_lr=1, num_it=steps)
    epochs = math.ceil(steps / len(learner.dls.train))
    reporting = learner.cbs.filter(lambda cb: isinstance(cb, BestEpoch | Progress))
    with learner.removed_cbs(reporting), learner.no_logging():
        learner.fit(epochs, cbs=[finder])
    lrs, losses = np.array(learner.recorder.lrs), np.array([float(loss) for loss in learner.recorder.losses])
    suggested, _ = valley(lrs, losses, len(lrs))
    return float(suggested), pd.DataFrame({"lr": lrs, "loss": losses})


def predict(model: TaggerModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int,
            batch_size: int = 32, desc: str = "predict") -> np.ndarray:
    """Logits in fp32, (texts, labels), in the order of `texts`; batches are formed by length."""
    logits = np.zeros((len(texts), model.config.num_labels), dtype=np.float32)
    model.eval()
    batches = list(by_length(token_counts(tokenizer, texts, max_length), batch_size))
    for batch in tqdm(batches, desc=desc, disable=None, leave=False):
        inputs = tokenizer([texts[i] for i in batch], padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            output = model(inputs["input_ids"].to(model.device), inputs["attention_mask"].to(model.device))
        logits[batch] = output.logits.float().cpu().numpy()
    return logits


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits, without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def by_length(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[int]:
    """Tokens of each text, counted in one call (hundreds of times faster than one text at a time)."""
    return [len(ids) for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]] if texts else []


def has_bf16() -> bool:
    """Whether this processor (or GPU) multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


# --- fastai pieces -----------------------------------------------------------------------------------------------


class BF16(Callback):
    """bfloat16 autocast on whatever device the model is on; fastai's own MixedPrecision knows CUDA only."""

    order = 10  # after blurr's callback has taken the logits out of the model's output

    def before_batch(self):
        self.autocast = torch.autocast(self.dls.device.type, dtype=torch.bfloat16)
        self.autocast.__enter__()

    def after_pred(self):
        self.learn.pred = self.pred.float()

    def after_loss(self):
        self.autocast.__exit__(None, None, None)


class BestEpoch(Callback):
    """Scores the validation rows after each epoch, keeps the best epoch's weights, stops after `patience` worse ones.

    The weights are kept in memory: fastai's SaveModelCallback writes a pickle.
    """

    order = 60

    def __init__(self, patience: int):
        self.patience, self.history, self.best, self.weights = patience, [], -1.0, None

    def before_validate(self):
        self.scores, self.targets = [], []

    def after_batch(self):
        if not self.training:
            self.scores.append(self.pred.detach().float().sigmoid().cpu())
            self.targets.append(self.yb[0].cpu())

    def after_epoch(self):
        scores, targets = torch.cat(self.scores).numpy(), torch.cat(self.targets).numpy()
        found = metrics.summary(targets, scores, metrics.best_threshold(targets, scores))
        losses = dict(zip(["train_loss", "valid_loss"], map(float, self.recorder.log[1:3]), strict=True))
        self.history.append({"epoch": self.epoch + 1} | losses | {key: found[key] for key in ("micro_f1", "p_at_1", "r_at_5")})
        if found["micro_f1"] > self.best:
            self.best, self.since = found["micro_f1"], 0
            self.weights = copy.deepcopy(self.model.state_dict())
        else:
            self.since += 1
            if self.since >= self.patience:
                raise CancelFitException()

    def after_fit(self):
        if self.weights is not None:
            self.model.load_state_dict(self.weights)
            self.weights = None


class Progress(Callback):
    """A bar over the whole training, and a line for each epoch (also where there is no terminal for a bar)."""

    order = 61  # after BestEpoch has scored the epoch

    def before_fit(self):
        self.bar = tqdm(total=self.n_epoch * len(self.dls.train), desc="train", unit=" batches", disable=None)

    def after_batch(self):
        if self.training:
            self.bar.update()
            self.bar.set_postfix(loss=f"{float(self.smooth_loss):.3f}", refresh=False)

    def after_epoch(self):
        row = self.learn.best_epoch.history[-1]
        self.bar.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))

    def after_fit(self):
        self.bar.close()


class InMemoryLRFinder(LRFinder):
    """fastai's LRFinder with the weights kept in memory instead of in a pickle."""

    def before_fit(self):
        super(LRFinder, self).before_fit()
        self.weights = copy.deepcopy(self.model.state_dict())
        self.best_loss = float("inf")

    def after_fit(self):
        self.model.load_state_dict(self.weights)
        self.learn.opt.clear_state()
        self.learn.opt = None


def _dataloaders(task: Task, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, model: TaggerModel) -> DataLoaders:
    frame = pd.concat([dataset.train.assign(is_valid=False), dataset.validation.assign(is_valid=True)], ignore_index=True)
    lengths = {part: token_counts(tokenizer, list(getattr(dataset, part)["text"]), task.model.max_length)
               for part in ("train", "validation")}
    text_block = TextBlock(
        hf_arch=model.config.model_type, hf_config=model.config, hf_tokenizer=tokenizer, hf_model=model,
        include_labels=False, max_length=task.model.max_length, dl_type=partial(SortedDL, res=lengths["train"]),
        tok_kwargs={"pad_to_multiple_of": 16},  # fewer shapes, for each of which torch keeps kernels in memory
    )
    block = DataBlock(
        blocks=(text_block, MultiCategoryBlock(vocab=dataset.labels)),
        get_x=ColReader("text"), get_y=ColReader("labels"), splitter=ColSplitter("is_valid"),
    )
    batch_size = task.training.for_rows(len(dataset.train)).batch_size
    return block.dataloaders(frame, bs=batch_size, val_bs=2 * batch_size, num_workers=0,
                             dl_kwargs=[{}, {"val_res": lengths["validation"]}])
