"""`tagwright clean|train|evaluate|quantize|tag|demo|where`: each stage as a command, and all of them as one.

Faults in what the user gave end in one line and exit code 2; Ctrl-C ends with 130.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tagwright.errors import TagwrightError
from tagwright.pipeline import Folders, run_pipeline, show_results
from tagwright.task import Task

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="From raw texts and labels to a small, live tagger.")

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's name (tasks/<name>.toml) or a path to a TOML file.")]
Work = Annotated[Path | None, typer.Option(help="Where the stages write.", show_default="data/work")]
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
def where(name: TaskName, work: Work = None) -> None:
    """Print the folder of a task's finished model."""
    print(_open(name, work)[1].tagger)


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
    sys.stdout.reconfigure(line_buffering=True)  # so that a log file of a long run can be followed
    try:
        app()
    except TagwrightError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)  # one line, whatever a library's message held
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has gone, as in `tagwright … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
