"""Fine-tuning with fastai and blurr: `build_learner()`, `fit()`, and `train()`, the stage that does it all.

The default recipe and why: logits are scored by binary cross-entropy summed (not averaged) over labels, because an
average over hundreds of mostly-zero targets has almost no gradient (multiclass: by the cross-entropy of their softmax); the
head learns faster than the encoder; one-cycle anneals over few epochs, because longer runs overfit; the epoch with the best
validation micro-F1 (multiclass: accuracy) is the one kept.
"""

import contextlib
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import DistributedDataParallelKwargs, PartialState
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import valley
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import num_distrib, rank_distrib, set_seed
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from tagwright import hues, metrics
from tagwright.batches import by_length, dataloaders, token_counts
from tagwright.blurr_compat import BaseModelCallback, BaseModelWrapper
from tagwright.bundle import Manifest, write_bundle
from tagwright.callbacks import BF16, BestEpoch, EpochSeed, InMemoryLRFinder, Progress, RDrop, SmoothLoss, Soup, network
from tagwright.checkpoint import Checkpoint
from tagwright.cpu import fast_on_cpu
from tagwright.dataset import Dataset
from tagwright.errors import Paused, TagwrightError
from tagwright.losses import loss_for
from tagwright.model import TaggerModel, check_fit, load_tokenizer, parameter_groups
from tagwright.stage import Stage, content_id, package_versions
from tagwright.task import Task, Training
from tagwright.thresholds import choose_thresholds


def build_learner(task: Task, dataset: Dataset, bar: bool = True) -> Learner:
    """A fastai Learner on blurr's blocks, ready to fit, its head initialised from the training rows.

    Raises TagwrightError where the encoder cannot be loaded.
    """
    if num_distrib() > 1:
        PartialState(cpu=not torch.cuda.is_available())  # joins the processes and gives each its device
    set_seed(task.training.seed, reproducible=True)
    tokenizer = load_tokenizer(task.model.encoder)
    model = TaggerModel.from_encoder(task.model.encoder, dataset.labels, task.model.pooling, task.kind)
    check_fit(model, tokenizer, task.model.encoder, task.model.max_length)
    share = torch.from_numpy(dataset.targets(dataset.train).mean(0))
    model.init_head(tokenizer, share, from_names=task.training.head_init == "label_names")
    if task.training.compile:
        model.encoder.compile(dynamic=True)  # batches differ in length
    learner = Learner(
        dataloaders(task, dataset, tokenizer, model), BaseModelWrapper(model),
        loss_func=loss_for(task.kind, task.training, share),
        splitter=parameter_groups,
        opt_func=partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True)), wd=task.training.weight_decay,
        cbs=[BaseModelCallback, EpochSeed(task.training.seed), BestEpoch(task.training.patience, task.kind), Soup()],
    )
    learner.remove_cb(ProgressCallback)
    learner.recorder.smooth_loss = SmoothLoss()
    learner.add_cbs([RDrop(task.training.r_drop)] * (task.training.r_drop > 0))
    learner.add_cbs([Progress()] * (bar and is_first()) + _precision())
    return learner


def fit(task: Task, learner: Learner, callbacks: Iterable[Callback] = (), runs: int = 0, epochs: int = 0) -> pd.DataFrame:
    """Train by one-cycle with discriminative learning rates, as many runs from the same start as the recipe's `soup`
    says; the learner keeps the mean of the weights of each run's best epoch.

    A callback that looks at each epoch's scores (`learner.best_epoch.history[-1]`) does so `after_epoch`, and may raise
    fastai's CancelFitException, which ends the run. `runs`, and `epochs` of the next one, are done and skipped.
    Returns the history: one row an epoch with run, epoch, train_loss, valid_loss and the EPOCH_SCORES of the task's kind.
    """
    recipe = task.training.for_rows(len(learner.dls.train_ds))
    rates = peak_rates(recipe, len(parameter_groups(learner.model)))
    start = {name: value.clone() for name, value in network(learner).state_dict().items()}
    learner.soup.runs = runs
    with _set_up(learner):
        while learner.soup.runs < recipe.soup:
            network(learner).load_state_dict(start)
            learner.opt = None
            learner.fit_one_cycle(recipe.epochs, lr_max=rates, cbs=list(callbacks), start_epoch=epochs)
            epochs = 0
    network(learner).load_state_dict(learner.soup.weights)
    return pd.DataFrame(learner.best_epoch.history)


def peak_rates(recipe: Training, groups: int) -> list[float]:
    """The peak learning rate of each of `parameter_groups`: the encoder's falls by `layer_decay` a layer, from the top to the
    embeddings."""
    return [*(recipe.encoder_lr * recipe.layer_decay**depth for depth in range(groups - 2, -1, -1)), recipe.head_lr]


def train(task: Task, data_dir: Path, out_dir: Path, force: bool = False, bar: bool = True, resume: bool = False,
          callbacks: Sequence[Callback] = ()) -> dict:
    """The training stage: fine-tune on a cleaned data set, choose the threshold(s) on its validation rows, write the model
    folder (`model.safetensors`, `config.json`, `tokenizer.json`, `tagwright.json`, `README.md`, and the data set's `hues.json`
    where it has one); returns the run record.

    An interrupted training with the same inputs, settings and code goes on after its last whole epoch, unless `force`;
    `resume` insists on that. Under `accelerate launch` the processes divide each batch among them; the first one writes.
    Raises TagwrightError where the data set is missing, the encoder cannot be loaded, there is nothing to `resume` or
    another process has ended, and Paused at Ctrl-C.
    """
    if force and resume:
        raise TagwrightError("--force starts anew and --resume goes on: give only one of them")
    dataset = Dataset.load(data_dir, task.name)
    if task.labels.hues != (cleaned := dataset.record["settings"].get("labels", {}).get("hues", task.labels.hues)):
        raise TagwrightError(f"{data_dir}: was cleaned with labels.hues = {cleaned!r}, but the task has {task.labels.hues!r}; "
                             f"run `tagwright clean {task.name}` again")
    settings = task.model_dump(include={"title": True, "kind": True, "input": True, "model": True, "training": True,
                                        "demo": True, "source": {"attribution", "licence"}, "labels": {"hues"}})
    encoder = Path(task.model.encoder)
    stage = Stage("train", out_dir, [data_dir, encoder] if encoder.is_dir() else [data_dir], settings)
    checkpoint = Checkpoint(out_dir, stage.made_of)
    fault = checkpoint.open(anew=force)
    if not force and not (resume and checkpoint.epochs) and (record := stage.unchanged()):
        return record
    if resume and fault:
        raise TagwrightError(f"nothing to resume: {fault}; run the command without --resume to start anew")
    if bar and is_first() and (checkpoint.epochs or checkpoint.file.exists()):
        print(f"train: starting anew, since {fault}" if fault else
              f"train: going on after run {checkpoint.runs + 1}, epoch {checkpoint.epochs}")
    with _endings(checkpoint):
        learner = build_learner(task, dataset, bar)
        size = sum(value.nbytes for value in learner.model.state_dict().values())
        stage.need_space(10 * size + 10_000_000)  # a checkpoint is up to five times the weights; there are two for a moment
        history = fit(task, learner, [checkpoint, *callbacks], checkpoint.runs, checkpoint.epochs)
        seconds = checkpoint.spent()
        if not is_first():
            return stage.record
        model, tokenizer = learner.model.hf_model, learner.dls.before_batch[0].hf_tokenizer
        y_true = dataset.targets(dataset.validation)
        logits = predict(model, tokenizer, list(dataset.validation["text"]), task.model.max_length)
        scores = metrics.probabilities(logits, task.kind)
        thresholds = choose_thresholds(y_true, scores, task.kind, task.training.thresholds == "per_label").round(4)
        validation = metrics.summary(y_true, scores, thresholds, task.kind)

        with stage.writing() as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if task.labels.hues:
                shutil.copyfile(data_dir / hues.MAP, folder / hues.MAP)
            write_bundle(folder, Manifest(
                task=task.name, title=task.title, kind=task.kind, labels=dataset.labels,
                thresholds=thresholds.tolist(), fields=task.input.fields, template=task.input.template,
                html=task.input.html, damaged_html=task.input.damaged_html, hues=task.labels.hues,
                max_length=task.model.max_length, pad_id=tokenizer.pad_token_id, encoder=task.model.encoder,
                examples=task.demo.examples, attribution=task.source.attribution, licence=task.source.licence,
                data=content_id(data_dir), metrics={"validation": validation}, versions=package_versions(),
            ))
            stage.record |= {
                "rows": {"train": len(dataset.train), "validation": len(dataset.validation)}, "seed": task.training.seed,
                "recipe": task.training.for_rows(len(dataset.train)).model_dump(), "bf16": has_bf16(),
                "processes": max(1, num_distrib()), "train_seconds": round(seconds, 1),
                "threshold": round(float(thresholds.mean()), 4),
                "metrics": {"validation": validation}, "history": history.round(4).to_dict("records"),
            }
    checkpoint.remove()
    return stage.record


def find_learning_rate(learner: Learner, steps: int = 100) -> tuple[float, pd.DataFrame]:
    """fastai's learning-rate range test over `steps` batches: the suggested rate (the "valley" rule) and the curve (lr, loss).

    The weights are put back as they were, from memory: fastai's own `lr_find` would save and load a pickle.
    """
    finder = InMemoryLRFinder(end_lr=1, num_it=steps)
    epochs = math.ceil(steps / len(learner.dls.train))
    reporting = learner.cbs.filter(lambda cb: isinstance(cb, BestEpoch | EpochSeed | Progress | Soup))
    with learner.removed_cbs(reporting), _set_up(learner):
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


def is_first() -> bool:
    """Whether this process is the one that writes and prints: the only one, or the first of several."""
    return rank_distrib() == 0


def has_bf16() -> bool:
    """Whether this GPU, or processor, multiplies bfloat16 matrices in units made for it. AVX512-BF16 alone is not that: with
    it a product of a training step takes twice as long as in fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _precision() -> list[Callback]:
    """bfloat16 where the hardware has it; on a GPU without it, float16 with scaled gradients."""
    if has_bf16():
        return [BF16()]
    return [MixedPrecision()] if torch.cuda.is_available() else []


@contextlib.contextmanager
def _set_up(learner: Learner) -> Iterator[None]:
    """What holds while a learner fits: it leaves printing to Progress, and shares its work with the other processes that
    `accelerate launch` started."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(learner.no_logging())
        for callback in learner.cbs.filter(lambda callback: isinstance(callback, BF16)):
            stack.callback(callback.close)
        if learner.dls.device.type == "cpu":
            stack.enter_context(fast_on_cpu(network(learner).encoder, learner.dls.before_batch[0].max_length))
        if num_distrib() > 1:
            settled = DistributedDataParallelKwargs(static_graph=True)  # XLNet has parameters that are never used
            stack.enter_context(learner.distrib_ctx(sync_bn=False, kwargs_handlers=[settled]))
        yield


@contextlib.contextmanager
def _endings(checkpoint: Checkpoint) -> Iterator[None]:
    """Where a training ends early, say what is saved and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Paused(f"train: interrupted; {_saved(checkpoint)}", code=130) from None
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)  # gloo raises plain RuntimeErrors
        if num_distrib() < 2 or not lost:
            raise
        raise TagwrightError(f"another of the {num_distrib()} training processes has ended, and this one with it; "
                             f"{_saved(checkpoint)}") from error


def _saved(checkpoint: Checkpoint) -> str:
    if not checkpoint.epochs:
        return "no epoch was finished, so the next run starts anew"
    return (f"run {checkpoint.runs + 1} is saved up to epoch {checkpoint.epochs}: run the same command again, or with "
            "--resume, to go on from there")
