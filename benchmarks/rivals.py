"""What a user could pick instead: fastText, TF-IDF + logistic regression, and the usual fine-tuning template.

A system `choose`s its settings on the validation rows, `train`s into a folder, and `load`s a model from it that gives
`scores(texts)`, probabilities of (texts, labels), and `tag`s texts as its user would. `depends` is what, beside the rows
and the seed, a result depends on; `version` goes up when the code below changes a result. `seeds` is False where a second
run would be the same.
"""

import json
import re
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock
from fastai.data.transforms import ColReader, ColSplitter
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.runs import SEEDS, THREADS, headline
from tagwright import metrics
from tagwright.baseline import TfidfBaseline
from tagwright.blurr_compat import BaseModelCallback, BaseModelWrapper, TextBlock, blurr_splitter, get_hf_objects
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.model import find_encoder
from tagwright.task import Task
from tagwright.training import predict


class Model:
    """A loaded model. `thresholds` None: still to be chosen on the validation rows."""

    thresholds: np.ndarray | None = None

    def __init__(self, kind: str):
        self.kind = kind

    def scores(self, texts: list[str]) -> np.ndarray:
        raise NotImplementedError

    def tag(self, texts: list[str], thresholds: float | np.ndarray):
        return metrics.decide(self.scores(texts), thresholds, self.kind)


def validation_scores(model: Model, dataset: Dataset) -> dict[str, float]:
    """A model's scores on the validation rows, with the one threshold that is best there."""
    y_true, scores = dataset.targets(dataset.validation), model.scores(list(dataset.validation["text"]))
    return metrics.summary(y_true, scores, metrics.best_threshold(y_true, scores, model.kind), model.kind)


# --- fastText ----------------------------------------------------------------------------------------------------


class FastText:
    """fastText (Joulin et al. 2017). For each of its two losses the settings are searched from those of its tutorial, by walks
    of one or more steps; a step that is better on the validation rows is kept, one that is not ends its walk. `split` is the
    tutorial's pre-processing: lower case, punctuation apart."""

    key, forms, seeds, version = "fasttext", ("fastText",), True, 2
    losses = ["ova", "softmax"]
    start = {"split": True, "wordNgrams": 2, "lr": 0.5, "epoch": 25, "dim": 50, "minn": 0, "maxn": 0}
    walks = [[{"split": False}], [{"wordNgrams": 1}], [{"lr": 1.0}, {"lr": 2.0}], [{"lr": 0.2}],
             [{"epoch": 50}, {"epoch": 100}, {"epoch": 200}, {"epoch": 400}], [{"epoch": 10}],
             [{"dim": 100}], [{"wordNgrams": 2}], [{"minn": 3, "maxn": 6}]]
    buckets = 200_000  # as in the tutorial; the default of two million makes a file of 400 MB and more

    def depends(self, task: Task, rows: int) -> dict:
        return {"start": self.start, "losses": self.losses, "walks": self.walks, "buckets": self.buckets}

    def choose(self, task: Task, dataset: Dataset, folder: Path) -> dict:
        tried = []

        def attempt(settings: dict) -> dict:
            tried.append({"settings": settings, **self._try(task, dataset, settings, folder)})
            bar.update()
            return tried[-1]

        with tqdm(desc="fastText: settings", unit=" trials", disable=None) as bar:
            for loss in self.losses:
                best = attempt({"loss": loss} | self.start)
                for walk in self.walks:
                    for step in walk:
                        if step.items() <= best["settings"].items():
                            continue
                        trial = attempt(best["settings"] | step)
                        if trial["score"] <= best["score"]:
                            break
                        best = trial
        (folder / "model.bin").unlink(missing_ok=True)
        return {"settings": max(tried, key=lambda trial: trial["score"])["settings"], "tried": tried}

    def _try(self, task: Task, dataset: Dataset, settings: dict, folder: Path) -> dict:
        """The mean over the seeds, since a single run's scores vary by more than most settings matter."""
        seconds, scores = [], []
        for seed in SEEDS:
            try:
                seconds.append(self._fit(dataset, settings, seed, folder))
            except RuntimeError as error:
                if "NaN" not in str(error):
                    raise
                return {"score": 0.0, "seconds": None}  # it diverges at too high a learning rate
            found = validation_scores(self.load(task, dataset.labels, folder, settings), dataset)
            scores.append(headline(found, task.kind))
        return {"score": round(float(np.mean(scores)), 4), "seconds": round(float(np.mean(seconds)), 3)}

    def train(self, task: Task, data_dir: Path, settings: dict, seed: int, folder: Path) -> float:
        return self._fit(Dataset.load(data_dir, task.name), settings, seed, folder)

    def _fit(self, dataset: Dataset, settings: dict, seed: int, folder: Path) -> float:
        column = {label: index for index, label in enumerate(dataset.labels)}
        lines = [" ".join([f"__label__{column[label]}" for label in row.labels] + [_one_line(row.text, settings["split"])])
                 for row in dataset.train.itertuples()]
        file = folder / "train.txt"
        file.write_text("\n".join(lines) + "\n", encoding="utf8")
        options = {name: value for name, value in settings.items() if name != "split"}
        started = time.perf_counter()
        model = _fasttext().train_supervised(str(file), bucket=self.buckets, thread=THREADS, seed=seed, verbose=0, **options)
        seconds = round(time.perf_counter() - started, 3)
        model.save_model(str(folder / "model.bin"))
        file.unlink()
        return seconds

    def load(self, task: Task, labels: list[str], folder: Path, settings: dict, form: str = "") -> "FastTextModel":
        return FastTextModel(task.kind, folder / "model.bin", len(labels), settings["split"])

    def files(self, folder: Path, form: str) -> list[Path]:
        return [folder / "model.bin"]


class FastTextModel(Model):
    def __init__(self, kind: str, file: Path, labels: int, split: bool):
        super().__init__(kind)
        self.model = _fasttext().FastText._FastText(model_path=str(file))  # `load_model` would print a warning each time
        self.labels, self.split = labels, split

    def scores(self, texts):
        matrix = np.zeros((len(texts), self.labels), dtype=np.float32)
        for row, text in enumerate(texts):
            for score, label in self._predict(text, -1, 0.0):
                matrix[row, int(label.removeprefix("__label__"))] = score
        return matrix.clip(0, 1)  # it adds 1e-5 to every probability

    def tag(self, texts, thresholds):
        return [self._predict(text, 1 if self.kind == "multiclass" else -1, float(thresholds)) for text in texts]

    def _predict(self, text, k: int, threshold: float) -> list[tuple[float, str]]:
        """What its `predict` calls, which itself fails on NumPy 2, and for many texts gives wrong probabilities."""
        return self.model.f.predict(_one_line(text, self.split) + "\n", k, threshold, "strict")


def _one_line(text: str, split: bool) -> str:
    """The text as a line; `split`: like the tutorial's `sed -e "s/\\([.\\!?,'/()]\\)/ \\1 /g" | tr "[:upper:]" "[:lower:]"`."""
    return " ".join((re.sub(r"([.!?,'/()])", r" \1 ", text).lower() if split else text).split())


def _fasttext():
    try:
        import fasttext  # here: it has wheels for Linux on x86_64 only
    except ModuleNotFoundError:
        raise TagwrightError("fastText is not installed: pip install fasttext-wheel==0.9.2") from None
    return fasttext


# --- TF-IDF + logistic regression --------------------------------------------------------------------------------


class Tfidf:
    """`tagwright.baseline`, its one setting chosen. Saved as float32 weights and a list of terms."""

    key, forms, seeds, version = "tfidf", ("TF-IDF + logistic regression",), False, 2
    search = [3.0, 10.0, 30.0, 100.0]

    def depends(self, task: Task, rows: int) -> dict:
        return {"C": self.search}

    def choose(self, task: Task, dataset: Dataset, folder: Path) -> dict:
        tried = []
        for C in self.search:  # noqa: N806 - scikit-learn's name
            fitted, seconds = self._fit(task, dataset, C)
            found = validation_scores(TfidfModel(task.kind, fitted), dataset)
            tried.append({"settings": {"C": C}, "score": round(headline(found, task.kind), 4), "seconds": seconds})
        return {"settings": max(tried, key=lambda trial: trial["score"])["settings"], "tried": tried}

    def train(self, task: Task, data_dir: Path, settings: dict, seed: int, folder: Path) -> float:
        fitted, seconds = self._fit(task, Dataset.load(data_dir, task.name), settings["C"])
        terms = fitted.vectorizer.get_feature_names_out().tolist()
        idf = fitted.vectorizer.idf_.astype(np.float32)
        np.savez(folder / "model.npz", coef=fitted.coef_, intercept=fitted.intercept_, idf=idf)
        (folder / "terms.json").write_text(json.dumps(terms, ensure_ascii=False), encoding="utf8")
        return seconds

    def _fit(self, task: Task, dataset: Dataset, C: float) -> tuple[TfidfBaseline, float]:  # noqa: N803
        started = time.perf_counter()
        fitted = TfidfBaseline(task.kind, C).fit(list(dataset.train["text"]), dataset.targets(dataset.train))
        return fitted, round(time.perf_counter() - started, 3)

    def load(self, task: Task, labels: list[str], folder: Path, settings: dict, form: str = "") -> "TfidfModel":
        baseline = TfidfBaseline(task.kind, settings["C"])
        terms = json.loads((folder / "terms.json").read_text(encoding="utf8"))
        with np.load(folder / "model.npz") as arrays:
            baseline.coef_, baseline.intercept_ = arrays["coef"], arrays["intercept"]
            baseline.vectorizer.set_params(vocabulary=terms, max_features=None)
            baseline.vectorizer.idf_ = arrays["idf"].astype(float)
        return TfidfModel(task.kind, baseline)

    def files(self, folder: Path, form: str) -> list[Path]:
        return [folder / "model.npz", folder / "terms.json"]


class TfidfModel(Model):
    def __init__(self, kind: str, baseline: TfidfBaseline):
        super().__init__(kind)
        self.baseline = baseline

    def scores(self, texts):
        return self.baseline.predict_proba(texts)


# --- the usual template ------------------------------------------------------------------------------------------


class Template:
    """Fine-tuning as tutorials on fastai and blurr show it: blurr's sequence classification with the encoder's own CLS pooler
    and a random head, binary cross-entropy averaged over labels (multiclass: cross-entropy), batches of 16 in fp32, two
    fifths of the epochs frozen, the rest with rates that fall from the embeddings to the head, as copies of the template have
    them; the last epoch is kept. Its usual threshold is 0.5; here it gets the one best on validation rows."""

    key, forms, seeds, version = "template", ("the usual template",), True, 2
    recipe = {"epochs": 5, "frozen_lr": 3.8e-3, "lr": [4.5e-4, 3.5e-5], "batch_size": 16}

    def depends(self, task: Task, rows: int) -> dict:
        """Its five epochs, or as many as a run of ours has where these are more."""
        epochs = max(self.recipe["epochs"], task.training.for_rows(rows).epochs)
        return self.recipe | {"epochs": epochs, "encoder": task.model.encoder, "max_length": task.model.max_length}

    def choose(self, task: Task, dataset: Dataset, folder: Path) -> dict:
        return {"settings": self.depends(task, len(dataset.train))}

    def train(self, task: Task, data_dir: Path, settings: dict, seed: int, folder: Path) -> float:
        dataset = Dataset.load(data_dir, task.name)
        started = time.perf_counter()
        learner = self.learner(task, dataset, settings, seed)
        frozen = round(2 / 5 * settings["epochs"])
        with learner.no_logging():
            learner.freeze()
            learner.fit_one_cycle(frozen, settings["frozen_lr"])
            learner.unfreeze()
            learner.fit_one_cycle(settings["epochs"] - frozen, slice(*settings["lr"]))
        seconds = round(time.perf_counter() - started, 3)
        learner.model.hf_model.save_pretrained(folder)
        learner.dls.before_batch[0].hf_tokenizer.save_pretrained(folder)
        return seconds

    def learner(self, task: Task, dataset: Dataset, settings: dict, seed: int) -> Learner:
        set_seed(seed, reproducible=True)
        location = find_encoder(settings["encoder"])
        config = AutoConfig.from_pretrained(location)
        config.num_labels = len(dataset.labels)
        objects = get_hf_objects(location, model_cls=AutoModelForSequenceClassification, config=config)
        frame = pd.concat([dataset.train.assign(is_valid=False), dataset.validation.assign(is_valid=True)], ignore_index=True)
        if task.kind == "multiclass":
            frame["labels"] = frame["labels"].str[0]
            targets, loss = CategoryBlock(vocab=dataset.labels, sort=False), CrossEntropyLossFlat()
        else:
            targets, loss = MultiCategoryBlock(vocab=dataset.labels), BCEWithLogitsLossFlat()
        text = TextBlock(*objects, max_length=settings["max_length"], include_labels=False)
        block = DataBlock(blocks=(text, targets), get_x=ColReader("text"), get_y=ColReader("labels"),
                          splitter=ColSplitter("is_valid"))
        dls = block.dataloaders(frame, bs=settings["batch_size"], num_workers=0)
        learner = Learner(dls, BaseModelWrapper(objects[-1]), loss_func=loss, splitter=blurr_splitter, cbs=[BaseModelCallback],
                          opt_func=partial(OptimWrapper, opt=torch.optim.Adam))
        if not sys.stderr.isatty():
            learner.remove_cb(ProgressCallback)
        return learner

    def load(self, task: Task, labels: list[str], folder: Path, settings: dict, form: str = "") -> "TemplateModel":
        return TemplateModel(task.kind, folder, settings["max_length"])

    def files(self, folder: Path, form: str) -> list[Path]:
        return [folder / name for name in ("model.safetensors", "config.json", "tokenizer.json")]


class TemplateModel(Model):
    def __init__(self, kind: str, folder: Path, max_length: int):
        super().__init__(kind)
        self.model, self.max_length = AutoModelForSequenceClassification.from_pretrained(folder), max_length
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def scores(self, texts):
        return metrics.probabilities(predict(self.model, self.tokenizer, texts, self.max_length), self.kind)
