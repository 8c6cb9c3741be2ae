"""`tagwright clean|train|evaluate|quantize|tag|demo|where|collected|export`: each stage as a command, and all of them as one.

Faults in what the user gave end in one line and exit code 2; Ctrl-C ends with 130.
"""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tagwright.errors import run
from tagwright.pipeline import Folders, run_pipeline, show_results
from tagwright.task import ROOT, Task

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="From raw texts and labels to a small, live tagger.")

# What collectors call their work in the store.
WORK_KINDS = {"api": "pages of the API", "listing": "listing pages", "question": "questions by address", "dump": "dumps"}
MAX_TROUBLES = 20  # rows of the closing table

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's name (tasks/<name>.toml) or a path to a TOML file.")]
Work = Annotated[Path | None, typer.Option(help="Where the stages write.", show_default="data/work")]
Database = Annotated[str | None, typer.Option("--db", help="SQLite file, or mysql+pymysql://user:password@host/database.",
                                              show_default="$TAGWRIGHT_DB or data/collected/items.sqlite")]
Force = Annotated[bool, typer.Option("--force", help="Run the stage even if nothing has changed.")]


@app.command()
def clean(name: TaskName, work: Work = None, force: Force = False) -> None:
    """Read the raw rows, clean and split them."""
    from tagwright.dataset import clean

    task, folders = _open(name, work)
    _report(clean(task, task.raw_path(), folders.dataset, force), folders.dataset)


@app.command()
def train(name: TaskName, work: Work = None, force: Force = False) -> None:
    """Fine-tune the encoder on the cleaned rows."""
    from tagwright.training import train

    task, folders = _open(name, work)
    _report(train(task, folders.dataset, folders.model, force), folders.model)


@app.command()
def evaluate(name: TaskName, work: Work = None, force: Force = False) -> None:
    """Score the trained model on the test rows, beside the TF-IDF baseline."""
    from tagwright.evaluation import evaluate

    task, folders = _open(name, work)
    _report(evaluate(task, folders.dataset, folders.model, folders.evaluation, force), folders.evaluation)


@app.command()
def quantize(name: TaskName, work: Work = None, force: Force = False) -> None:
    """Export to ONNX fp32 and int8, and score and time both."""
    from tagwright.onnx_export import quantize

    task, folders = _open(name, work)
    record = quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger, force)
    _report(record, folders.tagger)


@app.command()
def tag(name: TaskName, texts: Annotated[list[str], typer.Argument(help="Texts to tag.")], work: Work = None) -> None:
    """Tag texts with a task's int8 model."""
    from tagwright.tagger import Tagger

    _, folders = _open(name, work)
    _show_tags(Tagger.load(folders.tagger), texts)


@app.command()
def demo(name: TaskName, work: Work = None, force: Force = False) -> None:
    """Run every stage, print what came of it, and tag the task's examples."""
    from tagwright.tagger import Tagger

    task, folders = _open(name, work)
    console = Console()
    records = run_pipeline(task, folders, force, console)
    show_results(records, console)
    _show_tags(Tagger.load(folders.tagger), task.demo.examples)


@app.command()
def collected(db: Database = None) -> None:
    """Show what the item store holds: counts, dates, failures and what is left to fetch."""
    from tagwright.store import ItemStore

    show_collected(ItemStore(db), Console())


@app.command()
def export(site: Annotated[str, typer.Argument(help="The site, as `tagwright collected` names it.")],
           out: Annotated[Path | None, typer.Option(help="A .parquet, .csv (tags as JSON) or .jsonl file.",
                                                    show_default="data/collected/SITE.parquet")] = None,
           db: Database = None) -> None:
    """Write a site's collected items as a table that `clean` reads, with a task file for it beside it."""
    from tagwright.export import export, write_task
    from tagwright.store import ItemStore

    file = out or ROOT / "data" / "collected" / f"{site}.parquet"
    count = export(ItemStore(db), site, file)
    task = write_task(site, file)
    print(f"{count:,} rows → {file}")
    print(f"its task: {task}; next: make demo TASK={task}")
    if file.name not in task.read_text(encoding="utf8"):
        print(f"note: that task was there before and names another table: its source.path is yours to change to {file.name}")


@app.command()
def where(name: TaskName, work: Work = None) -> None:
    """Print the folder of a task's finished model."""
    print(_open(name, work)[1].tagger)


def show_collected(store, console: Console) -> None:
    summary = store.summary()
    if not any(summary.values()):
        print(f"{store.name} is empty; the scripts in stackapi/ and scraper/ fill it")
        return
    table = Table(title=f"Items in {store.name}", title_justify="left")
    for column in ("site", "by", "items", "oldest", "newest", "last stored"):
        table.add_column(column, justify="right" if column == "items" else "left")
    for site, source, count, oldest, newest, stored in summary["items"]:
        table.add_row(site, source, f"{count:,}", *(_day(moment) for moment in (oldest, newest, stored)))
    console.print(table)
    counts: dict[tuple, dict] = {}
    for site, kind, state, count in summary["work"]:
        counts.setdefault((site, kind), {})[state] = count
    table = Table(title="Work", title_justify="left")
    for column in ("site", "kind", "done", "left", "being fetched", "failed"):
        table.add_column(column, justify="left" if column in ("site", "kind") else "right")
    for (site, kind), states in counts.items():
        table.add_row(site, WORK_KINDS.get(kind, kind),
                      *(f"{states.get(state, 0):,}" for state in ("done", "todo", "taken", "failed")))
    console.print(table)
    troubles = [(*row[:2], "failed", *row[2:]) for row in summary["failures"]]
    troubles += [(*row[:2], "refused", *row[2:]) for row in summary["rejected"]]
    if troubles:
        table = Table(title="Failed and refused", title_justify="left")
        for column in ("site", "of", "", "reason", "count"):
            table.add_column(column, justify="right" if column == "count" else "left")
        for site, what, fate, reason, count in troubles[:MAX_TROUBLES]:
            table.add_row(site, WORK_KINDS.get(what, what), fate, escape(reason), f"{count:,}")
        console.print(table)
        if len(troubles) > MAX_TROUBLES:
            print(f"… and {len(troubles) - MAX_TROUBLES} more reasons")


def _day(moment: int | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%d", time.gmtime(moment))


def _open(name: str, work: Path | None) -> tuple[Task, Folders]:
    task = Task.load(name)
    return task, Folders.of(task, work)


def _report(record: dict, folder: Path) -> None:
    if record.get("skipped"):
        print(f"{record['stage']}: skipped, nothing has changed since {record['finished']} → {folder}")
        return
    for key in ("rows", "labels", "metrics"):
        for name, value in record.get(key, {}).items():
            pairs = value.items() if isinstance(value, dict) else [("", value)]
            print(f"  {key}  {name}  " + "  ".join(f"{inner} {number}".strip() for inner, number in pairs))
    print(f"{record['stage']}: done in {record['seconds']:.1f} s → {folder}")


def _show_tags(tagger, texts: list) -> None:
    for text, tags in zip(texts, tagger.tag(texts), strict=True):
        shown = text if isinstance(text, str) else text[tagger.manifest.fields[0]]
        given = "  ".join(f"{label} {score:.2f}" for label, score in tags)
        print(f"\n{shown}\n    {given or 'no label above its threshold'}")


def main() -> None:
    """The console script."""
    run(app)


if __name__ == "__main__":
    main()
