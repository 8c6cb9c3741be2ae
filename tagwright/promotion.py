"""Which model answers: the stage `promote()`, at the pipeline's end.

It is a choice, so it is made on validation rows. A model that was trained on another version of the data set may have learned
these very rows, so that its score on them would say nothing: such a one is not compared, and goes.
"""

import contextlib
import os
import shutil
from pathlib import Path

from rich.console import Console

from tagwright import metrics
from tagwright.bundle import CARD_SCORES, added_labels, read_bundle
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.label_names import NameHead, same_name
from tagwright.stage import RECORD, Stage, content_id
from tagwright.tagger import Tagger
from tagwright.task import Task

PRESENT, NEW = "promoted before", "just made"


def promote(task: Task, data_dir: Path, tagger_dir: Path, models_dir: Path, out_dir: Path, force: bool = False) -> dict:
    """The promotion stage: of the model promoted before, the new one in `tagger_dir` and those that `compare_models` left in
    `models_dir`, the one with the best headline score on the validation rows, in int8, goes to `out_dir`; where scores are
    equal, the first in this order. Labels that had been added by name to the model before are added to its successor.

    Returns the run record: `candidates` (`name`, `encoder`, `score`, or the `reason` why it was not compared), `promoted`,
    `score`, `why`, and the `lost` labels, which the successor cannot take. Raises TagwrightError where the data set or the
    new model is missing or damaged.
    """
    dataset = Dataset.load(data_dir, task.name)
    read_bundle(tagger_dir)
    others = sorted(path for path in models_dir.glob("*/tagger") if (path / RECORD).is_file())
    headline = metrics.HEADLINE[task.kind]
    stage = Stage("promote", out_dir, [data_dir, tagger_dir, *others],
                  {"score": headline, "candidates": [path.parent.name for path in others]})
    if not force and (record := stage.unchanged()):
        return record
    folders = {NEW: tagger_dir} | {f"models/{path.parent.name}": path for path in others}
    if out_dir.exists():
        folders = {PRESENT: out_dir} | folders
    candidates = [{"name": name} | _judge(folder, dataset, content_id(data_dir)) for name, folder in folders.items()]
    scored = [candidate for candidate in candidates if "score" in candidate]
    if not scored:
        reason = next(candidate["reason"] for candidate in candidates if candidate["name"] == NEW)
        raise TagwrightError(f"{tagger_dir}: {reason}; make it again with `tagwright demo {task.name}`")
    best = max(scored, key=lambda candidate: candidate["score"])
    added = added_labels(out_dir)
    with stage.writing() as folder:
        shutil.copytree(folders[best["name"]], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD),
                        copy_function=_link)
        lost = _add_again(folder, added)
        stage.record |= {"rows": {"validation": len(dataset.validation)}, "candidates": candidates, "promoted": best["name"],
                         "encoder": best["encoder"], "score": best["score"], "lost": lost,
                         "why": _why(best, candidates, CARD_SCORES[task.kind][headline])}
    return stage.record


def score(model: Path, dataset: Dataset, split: str) -> float | None:
    """The headline score of a model's int8 form on a split of a data set, None where the labels that it was trained on are
    not the data set's. Raises TagwrightError where the model is damaged or has no int8 form."""
    manifest, rows = read_bundle(model), getattr(dataset, split)
    if {*manifest.labels} - {*manifest.added} != {*dataset.labels}:
        return None
    tagger = Tagger.load(model)
    order = [manifest.labels.index(label) for label in dataset.labels]
    scores = tagger.scores(list(rows["text"]))[:, order]
    summary = metrics.summary(dataset.targets(rows), scores, tagger.thresholds[order], manifest.kind)
    return summary[metrics.HEADLINE[manifest.kind]]


def show_promotion(record: dict, console: Console) -> None:
    console.print(f"promotion: {record['why']}", soft_wrap=True, highlight=False, markup=False)
    if record["lost"]:
        console.print(f"  it cannot take the labels that had been added by name: {', '.join(record['lost'])}",
                      soft_wrap=True, highlight=False, markup=False)


def _judge(folder: Path, dataset: Dataset, data: str) -> dict:
    """A candidate's `encoder` and `score`, or the `reason` why it cannot be compared."""
    try:
        manifest = read_bundle(folder)
        if manifest.data != data:
            return {"encoder": manifest.encoder, "reason": "trained on another version of the data set"}
        found = score(folder, dataset, "validation")
    except TagwrightError as error:
        return {"reason": str(error)}
    return {"encoder": manifest.encoder} | ({"reason": "has other labels"} if found is None else {"score": found})


def _why(best: dict, candidates: list[dict], measure: str) -> str:
    def said(candidate: dict) -> str:
        result = f"{candidate['score']:.4f}" if "score" in candidate else f"not compared: {candidate['reason']}"
        return f"{candidate['encoder']}, {candidate['name']} ({result})" if "encoder" in candidate else \
            f"{candidate['name']} ({result})"

    others = [said(candidate) for candidate in candidates if candidate is not best]
    return (f"{best['encoder']}, {best['name']}, answers: {measure} {best['score']:.4f} on the validation rows"
            + (f"; the others: {'; '.join(others)}" if others else ""))


def _link(source: str, target: str) -> None:
    """A network under a second name, which costs no disk and is safe, since no stage changes a file that is written; a copy
    of what is small, and where the file system knows no second names or the places lie in two."""
    if source.endswith((".onnx", ".safetensors")):
        with contextlib.suppress(OSError):
            return os.link(source, target)
    shutil.copy2(source, target)


def _add_again(folder: Path, added: dict[str, str]) -> list[str]:
    """Give a model the added labels of the one before; returns those that it cannot take."""
    manifest = read_bundle(folder)
    missing = {label: text for label, text in added.items() if not same_name(label, manifest.labels)}
    if missing and {NameHead.FILE, "model.safetensors"} <= manifest.files.keys():
        from tagwright.onnx_export import add_labels  # torch takes seconds to import, and is seldom needed here

        add_labels(folder, missing)
        return []
    return list(missing)
