"""What a trained model gets right and wrong on the test rows, beside the TF-IDF baseline."""

from pathlib import Path

import cleanlab
import numpy as np
import pandas as pd

from tagwright import hues, metrics
from tagwright.baseline import TfidfBaseline
from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset
from tagwright.label_errors import FILE, find_label_errors
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.rows import to_json
from tagwright.stage import Stage, read_record
from tagwright.task import Task
from tagwright.training import predict

LABEL_ERRORS = 50


def evaluate(task: Task, data_dir: Path, model_dir: Path, out_dir: Path, force: bool = False) -> dict:
    """The evaluation stage: score the test rows by the model and by the baseline; returns the run record.

    Thresholds come from validation rows, for both; where the labels stand for colours, the record's `hues` are both's
    `hue_scores`. Writes `per_label.csv`, `mistakes.jsonl`, `label_errors.jsonl` (the likeliest LABEL_ERRORS of them, see
    `find_label_errors`), for multiclass also `confusion.csv` (true labels down, given ones across), and `scores.npz` (arrays
    `validation`, `test`, `baseline_test`: probabilities, (rows, labels)). Raises TagwrightError where an earlier stage's
    folder is missing or changed.
    """
    dataset = Dataset.load(data_dir, task.name)
    read_record(model_dir, f"tagwright train {task.name}")
    manifest = read_bundle(model_dir)
    stage = Stage("evaluate", out_dir, [data_dir, model_dir],
                  {"baseline": "tfidf-logistic-regression", "label_errors": f"cleanlab {cleanlab.__version__}"})
    if not force and (record := stage.unchanged()):
        return record
    texts = {part: list(getattr(dataset, part)["text"]) for part in ("train", "validation", "test")}
    y_validation, y_test = dataset.targets(dataset.validation), dataset.targets(dataset.test)

    baseline = TfidfBaseline(task.kind).fit(texts["train"], dataset.targets(dataset.train))
    baseline_threshold = metrics.best_threshold(y_validation, baseline.predict_proba(texts["validation"]), task.kind)
    baseline_test = baseline.predict_proba(texts["test"])

    model, tokenizer = load_tagger_model(model_dir), load_tokenizer(model_dir)
    scores = {}
    for part in ("validation", "test"):
        logits = predict(model, tokenizer, texts[part], manifest.max_length, desc=f"score {part} rows")
        scores[part] = metrics.probabilities(logits, task.kind)
    thresholds = np.array(manifest.thresholds, dtype=np.float32)

    with stage.writing() as folder:
        table = metrics.per_label(dataset.labels, y_test, scores["test"], thresholds, task.kind)
        table.to_csv(folder / "per_label.csv", index=False)
        mistakes = confident_mistakes(dataset, scores["test"], thresholds, kind=task.kind)
        label_errors = find_label_errors(dataset, scores, task.kind)
        for name, found in (("mistakes.jsonl", mistakes), (FILE, label_errors[:LABEL_ERRORS])):
            lines = [to_json(row) + "\n" for row in found.to_dict("records")]
            (folder / name).write_text("".join(lines), encoding="utf8")
        if task.kind == "multiclass":
            matrix = pd.DataFrame(metrics.confusion(y_test, scores["test"]), dataset.labels, dataset.labels)
            matrix.to_csv(folder / "confusion.csv", index_label="true label")
        np.savez(folder / "scores.npz", baseline_test=baseline_test.astype(np.float32), **scores)
        stage.record |= {
            "rows": {part: len(texts[part]) for part in texts},
            "metrics": {
                "TF-IDF + logistic regression": metrics.summary(y_test, baseline_test, baseline_threshold, task.kind),
                "PyTorch": metrics.summary(y_test, scores["test"], thresholds, task.kind),
            },
            "calibration_error": round(metrics.calibration_error(y_test, scores["test"], kind=task.kind), 4),
            "label_errors": {part: int((label_errors["split"] == part).sum()) for part in scores},  # those not written, too
        }
        if manifest.hues:
            reasons = hues.load_map(model_dir / hues.MAP)
            given = {"TF-IDF + logistic regression": metrics.decide(baseline_test, baseline_threshold, task.kind),
                     "PyTorch": metrics.decide(scores["test"], thresholds, task.kind)}
            stage.record["hues"] = {name: hue_scores(dataset.labels, dataset.test, y_pred, reasons, manifest.hues)
                                    for name, y_pred in given.items()}
        if task.kind == "multiclass":
            stage.record["accuracy_of_the_most_frequent_label"] = round(float(y_test[:, 0].mean()), 4)
        else:
            stage.record["cells_right_if_nothing_is_predicted"] = round(float(1 - y_test.mean()), 4)
    return stage.record


def hue_scores(labels: list[str], rows: pd.DataFrame, y_pred: np.ndarray, reasons: dict[str, hues.Reason],
               way: str) -> dict[str, float]:
    """Micro- and macro-F1 of the colours that the labels given to `rows` of a data set, (rows, labels), stand for, the `way`
    that `labels.hues` says. The truth is the same for both ways, `true_hues`. `macro_f1` is over all colours of the map,
    `macro_f1_supported` over those that a row has."""
    truth, given = true_hues(rows, reasons), given_hues(labels, y_pred, reasons, way)
    scores = {"micro_f1": metrics.micro_f1(truth, given), "macro_f1": metrics.macro_f1(truth, given),
              "macro_f1_supported": metrics.macro_f1(truth, given, supported_only=True)}
    return {name: round(score, 4) for name, score in scores.items()}


def best_hue_threshold(labels: list[str], rows: pd.DataFrame, scores: np.ndarray, reasons: dict[str, hues.Reason], way: str,
                       kind: str) -> float:
    """The one threshold for all labels with the best micro-F1 of the colours that the labels then stand for; 0 for multiclass.
    Choose it on validation rows. `scores` are probabilities of the labels, (rows, labels)."""
    brings = _label_hues(labels, reasons, way)
    # A colour is given as soon as one of its labels is: where the highest of their scores reaches the threshold.
    highest = np.stack([scores[:, column].max(1, initial=0) for column in brings.T], axis=1)
    return metrics.best_threshold(true_hues(rows, reasons), highest, kind)


def true_hues(rows: pd.DataFrame, reasons: dict[str, hues.Reason]) -> np.ndarray:
    """The colours of all of a row's genres, those too that are no labels: 0/1, (rows, colours of the map)."""
    column = {hue: index for index, hue in enumerate(_all_hues(reasons))}
    truth = np.zeros((len(rows), len(column)), dtype=int)
    for row, found in enumerate(rows["hues"]):
        truth[row, [column[hue] for hue in found]] = 1
    return truth


def given_hues(labels: list[str], y_pred: np.ndarray, reasons: dict[str, hues.Reason], way: str) -> np.ndarray:
    """The colours that the labels given, (rows, labels), stand for: bool, (rows, colours of the map)."""
    return (y_pred.astype(int) @ _label_hues(labels, reasons, way)) > 0


def _label_hues(labels: list[str], reasons: dict[str, hues.Reason], way: str) -> np.ndarray:
    """Which colours each label stands for: bool, (labels, colours of the map)."""
    found = [{label} if way == "predicted" else set(hues.hues_of([label], reasons)) for label in labels]
    named = _all_hues(reasons)
    return np.array([[hue in each for hue in named] for each in found])


def _all_hues(reasons: dict[str, hues.Reason]) -> list[str]:
    return sorted({hue for reason in reasons.values() for hue in reason.hues})


def confident_mistakes(dataset: Dataset, scores: np.ndarray, thresholds: np.ndarray, count: int = 25,
                       kind: str = "multilabel") -> pd.DataFrame:
    """The decisions on test rows that were most surely wrong, at most `count` of each kind: labels given with high scores
    that the row does not have ("extra") and labels it has that scored low ("missed"); the surest first. For multiclass,
    where each extra label is also a missed one, only the label given ("wrong").

    Columns: kind, label, score, labels (the true ones), line, text.
    """
    y_true = dataset.targets(dataset.test) > 0
    given = metrics.decide(scores, thresholds, kind)
    extra, missed = ("extra", given & ~y_true, scores), ("missed", ~given & y_true, 1 - scores)
    rows = []
    for name, wrong, sureness in [("wrong", *extra[1:])] if kind == "multiclass" else [extra, missed]:
        places = np.argwhere(wrong)  # (mistakes, 2): row and column of each
        for row, column in places[np.argsort(-sureness[wrong], kind="stable")][:count]:
            item = dataset.test.iloc[row]
            rows.append({"kind": name, "label": dataset.labels[column], "score": round(float(scores[row, column]), 4),
                         "labels": list(item["labels"]), "line": int(item["line"]), "text": item["text"]})
    return pd.DataFrame(rows, columns=["kind", "label", "score", "labels", "line", "text"])
