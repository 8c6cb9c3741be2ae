"""A task's encoders side by side: each is trained, compressed and measured by the same functions.

Which model to take is a choice, so it is made on validation rows; no test row is looked at here.
"""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from tagwright import metrics
from tagwright.bundle import CARD_SCORES, read_bundle, write_bundle
from tagwright.dataset import Dataset
from tagwright.model import EncoderError, load_tagger_model, load_tokenizer
from tagwright.onnx_export import calibration_batches, export, ms_per_text
from tagwright.stage import RECORD, Stage, release_memory, write_json
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import train

WEIGHTS = "model.safetensors"


def compare_models(task: Task, data_dir: Path, model_dir: Path, out_dir: Path, force: bool = False, bar: bool = True) -> dict:
    """Train each of `task.encoders`, the task's own in `model_dir`, the others in `out_dir/<encoder>/model`; each one's int8
    form goes to `out_dir/<encoder>/tagger`. What an earlier call trained, and nothing has changed since, stays.

    Returns, and writes to `out_dir/comparison.json`: `rows`, one dict a model (`encoder`, `parameters`, `train_seconds`,
    `validation` and `validation_int8` scores, `bytes` and `ms_per_text` of the int8 file), and `missing`, encoder → the
    reason why it is not among them. Raises TagwrightError where the data set is missing or the task's own encoder fails.
    """
    rows, missing = [], {}
    for encoder in tqdm(task.encoders, desc="models", unit=" models", disable=None if bar else True):
        own = encoder == task.model.encoder
        variant = task.model_copy(update={"model": task.model.model_copy(update={"encoder": encoder})})
        place = out_dir / _folder_name(encoder)
        try:
            trained = train(variant, data_dir, model_dir if own else place / "model", force, bar)
            measured = measure(variant, data_dir, model_dir if own else place / "model", place / "tagger", force)
        except EncoderError as error:
            if own:
                raise
            missing[encoder] = error.reason
            continue
        finally:
            release_memory()
        rows.append({"encoder": encoder, "train_seconds": trained["train_seconds"],
                     "validation": trained["metrics"]["validation"], "validation_int8": measured["metrics"]["validation"]}
                    | {key: measured[key] for key in ("parameters", "bytes", "ms_per_text")})
    found = {"task": task.name, "rows": rows, "missing": missing}
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(out_dir / "comparison.json", found)
    return found


def comparison_table(kind: str, found: dict) -> pd.DataFrame:
    """The result of `compare_models`, one row a model: encoder, the kind's headline score and macro-F1, each of the PyTorch
    model and of its int8 form, and what the model weighs and takes (MB and ms: the int8 file)."""
    names = {key: CARD_SCORES[kind][key] for key in (metrics.HEADLINE[kind], "macro_f1")}
    forms = {"": "validation", ", int8": "validation_int8"}
    return pd.DataFrame([
        {"encoder": row["encoder"]}
        | {name + form: row[where][key] for key, name in names.items() for form, where in forms.items()}
        | {"million parameters": row["parameters"] / 1e6, "minutes of training": row["train_seconds"] / 60,
           "MB": row["bytes"] / 1e6, "ms a text": row["ms_per_text"]} for row in found["rows"]])


def show_comparison(task: Task, found: dict, console: Console) -> None:
    """The result of `compare_models` as a table, and a line for each model that is not in it."""
    rows = comparison_table(task.kind, found)
    table = Table(title="Models on the validation rows (MB and ms: the int8 file)", title_justify="left")
    for name in rows:
        table.add_column(name, **({"overflow": "fold"} if name == "encoder" else {"justify": "right"}))
    digits = [1 if name in ("million parameters", "minutes of training", "MB") else 2 if name == "ms a text" else 3
              for name in rows.columns[1:]]
    for encoder, *values in rows.itertuples(index=False):
        table.add_row(encoder, *(f"{value:.{places}f}" for value, places in zip(values, digits, strict=True)))
    console.print(table)
    for encoder, reason in found["missing"].items():
        console.print(f"{encoder}: {reason}", soft_wrap=True, highlight=False, markup=False)


def best_model(task: Task, model_dir: Path, out_dir: Path) -> tuple[str, Path]:
    """The encoder whose int8 form did best on the validation rows when `compare_models` wrote to `out_dir`, and the folder of
    its model; the task's own in `model_dir` where another is no better, or where nothing has been compared."""
    file = out_dir / "comparison.json"
    rows = json.loads(file.read_text(encoding="utf8"))["rows"] if file.is_file() else []
    scores = {row["encoder"]: row["validation_int8"][metrics.HEADLINE[task.kind]] for row in rows}
    known = [encoder for encoder in task.encoders if encoder in scores]  # the task's own first
    best = max(known, key=scores.get, default=task.model.encoder)
    return best, model_dir if best == task.model.encoder else out_dir / _folder_name(best) / "model"


def measure(task: Task, data_dir: Path, model_dir: Path, out_dir: Path, force: bool = False) -> dict:
    """The stage behind a row: a trained model's int8 form, a folder that `Tagger.load` takes, scored on the validation rows
    with the thresholds that the model came with, and timed on at most 300 of them.

    Returns the run record. Raises TagwrightError where an earlier stage's folder is missing or changed, EncoderError where
    the network cannot be exported.
    """
    dataset, manifest = Dataset.load(data_dir, task.name), read_bundle(model_dir)
    stage = Stage("measure", out_dir, [data_dir, model_dir], {})
    if not force and (record := stage.unchanged()):
        return record
    texts, y_true = list(dataset.validation["text"]), dataset.targets(dataset.validation)
    model = load_tagger_model(model_dir)
    stage.need_space(2 * (model_dir / WEIGHTS).stat().st_size)
    with stage.writing() as folder:
        shutil.copytree(model_dir, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD, WEIGHTS))
        batches = calibration_batches(load_tokenizer(model_dir), list(dataset.train["text"]), manifest.max_length)
        export(model, folder, manifest.max_length, batches, ["int8"])
        write_bundle(folder, manifest)
        tagger = Tagger.load(folder)
        scores = tagger.scores(texts)
        stage.record |= {
            "rows": {"validation": len(texts)},
            "metrics": {"validation": metrics.summary(y_true, scores, tagger.thresholds, task.kind)},
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "bytes": (folder / FILES["int8"]).stat().st_size, "ms_per_text": ms_per_text(tagger.logits, texts),
        }
    return stage.record


def _folder_name(encoder: str) -> str:
    return re.sub(r"[^\w.-]+", "--", encoder).strip("-.")[-100:]
