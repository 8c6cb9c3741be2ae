"""All stages in a row, where their folders lie, and the closing table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from tagwright.bundle import CARD_SCORES, MANIFEST
from tagwright.dataset import clean
from tagwright.stage import release_memory
from tagwright.task import ROOT, Task

if TYPE_CHECKING:
    from fastai.callback.core import Callback


class Folders(NamedTuple):
    """Where the stages of one task read and write: folders in `data/work/<task>/`, unless told otherwise."""

    dataset: Path
    validation: Path
    model: Path
    evaluation: Path
    tagger: Path
    tuning: Path
    models: Path  # those compared with the task's own
    encoder: Path  # one pre-trained on the task's texts
    best: Path  # the promoted model

    @classmethod
    def of(cls, task: Task, work: Path | None = None) -> "Folders":
        return cls.under(Path(work or ROOT / "data" / "work") / task.name)

    @classmethod
    def under(cls, root: Path) -> "Folders":
        return cls(*(root / name for name in cls._fields))

    @property
    def answering(self) -> Path:
        """The promoted model; where none has been, as after single stages, the one that was just made."""
        return self.best if (self.best / MANIFEST).is_file() else self.tagger


def run_pipeline(task: Task, folders: Folders, force: bool = False, console: Console | None = None,
                 raw_path: Path | None = None, bar: bool = True, callbacks: Sequence["Callback"] = (),
                 promotion: Callable[[], dict] | None = None) -> dict[str, dict]:
    """clean → validate → train → evaluate → quantize → promote; a stage whose inputs and settings are as before is skipped,
    and says so. `raw_path` is where other rows than the task's own are, `callbacks` and `bar` are training's, and `promotion`
    is done in place of the last stage.

    Returns each stage's run record. Raises TagwrightError as the stages do.
    """
    console = console or Console()
    records = {"clean": clean(task, raw_path or task.raw_path(), folders.dataset, force)}
    _say(console, "clean", folders.dataset, records)
    from tagwright.validation import validate  # each takes a second or more to import: after the first quick stages

    records["validate"] = validate(task, folders.dataset, folders.validation, force)
    _say(console, "validate", folders.validation, records)
    from tagwright.evaluation import evaluate
    from tagwright.onnx_export import quantize
    from tagwright.promotion import promote
    from tagwright.training import train

    records["train"] = train(task, folders.dataset, folders.model, force, bar, callbacks=callbacks)
    _say(console, "train", folders.model, records)
    records["evaluate"] = evaluate(task, folders.dataset, folders.model, folders.evaluation, force)
    _say(console, "evaluate", folders.evaluation, records)
    records["quantize"] = quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger, force)
    _say(console, "quantize", folders.tagger, records)
    if promotion is not None:
        return records | {"promote": promotion()}
    records["promote"] = promote(task, folders.dataset, folders.tagger, folders.models, folders.best, force)
    _say(console, "promote", folders.best, records)
    return records


def show_results(records: dict[str, dict], console: Console) -> None:
    """What came of it all: rows kept and dropped, what validation found, what each form of the model scores, weighs and
    takes, and which model answers."""
    from tagwright.promotion import show_promotion
    from tagwright.validation import summary

    rows, labels = records["clean"]["rows"], records["clean"]["labels"]
    table = Table(title="Rows", title_justify="left")
    table.add_column("")
    table.add_column("rows", justify="right")
    table.add_row("read", str(rows["read"]))
    for reason, count in rows["rejected"].items():
        table.add_row(f"dropped: {reason}", str(count))
    table.add_row("kept", str(rows["kept"]), style="bold")
    table.add_row("train / validation / test", " / ".join(str(rows[part]) for part in ("train", "validation", "test")))
    table.add_row("labels kept", f"{labels['kept']} ({labels['rare']} rare ones dropped)")
    console.print(table)
    console.print(f"validation: {summary(records['validate'])}", soft_wrap=True, highlight=False, markup=False)

    final = records["quantize"]
    kind = records["clean"]["settings"]["kind"]
    shown = CARD_SCORES[kind]
    chosen = " (thresholds chosen on validation rows)" if kind == "multilabel" else ""
    table = Table(title=f"Test scores of the new model{chosen}", title_justify="left")
    for name in ("model", *shown.values(), "MB", "ms a text"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, scores in final["metrics"].items():
        size, speed = final["bytes"].get(name), final["ms_per_text"].get(name)
        table.add_row(name, *(f"{scores[key]:.3f}" for key in shown),
                      f"{size / 1e6:.1f}" if size else "", f"{speed:.2f}" if speed else "")
    console.print(table)
    show_promotion(records["promote"], console)


def _say(console: Console, name: str, folder: Path, records: dict[str, dict]) -> None:
    release_memory()
    record = records[name]
    if record.get("skipped"):
        line = f"[dim]{name}: skipped, nothing has changed since {record['finished']}[/dim] → {folder}"
    else:
        line = f"{name}: done in {record['seconds']:.1f} s → {folder}"
    console.print(line, soft_wrap=True, highlight=False)
