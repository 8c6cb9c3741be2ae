"""`tagwright fetch|clean|validate|pretrain|train|tune|compare|evaluate|label-errors|quantize|promote|tag|bulk|add-label|
explain-hue|publish|pull|demo|where|collected|merge|export`: each stage as a command, and all of them as one.

Faults in what the user gave end in one line and exit code 2; Ctrl-C ends with 130.
"""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tagwright.bundle import MANIFEST
from tagwright.errors import Paused, TagwrightError, run
from tagwright.pipeline import Folders, run_pipeline, show_results
from tagwright.task import ROOT, Task

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="From raw texts and labels to a small, live tagger.")

# What collectors call their work in the store.
WORK_KINDS = {"api": "pages of the API", "listing": "listing pages", "question": "questions by address",
              "book": "books by address", "dump": "dumps"}
MAX_TROUBLES = 20  # rows of the closing table
MAX_REASONS = 5  # why rows were rejected

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's name (tasks/<name>.toml) or a path to a TOML file.")]
Work = Annotated[Path | None, typer.Option(help="Where the stages write.", show_default="data/work")]
Database = Annotated[str | None, typer.Option("--db", help="SQLite file, or mysql+pymysql://user:password@host/database.",
                                              show_default="$TAGWRIGHT_DB or data/collected/items.sqlite")]
Data = Annotated[str | None, typer.Option("--data", metavar="PLACE", show_default="where the task says",
                                          help="Where the rows are: a file, a folder, a .zip or .tar.gz archive, https://…, "
                                               "s3://…, or `sample`: the task's embedded sample, whose stages and model have "
                                               "a folder of their own.")]
Force = Annotated[bool, typer.Option("--force", help="Run the stage even if nothing has changed.")]


@app.command()
def fetch(name: TaskName, data: Data = None,
          force: Annotated[bool, typer.Option("--force", help="Download it anew, though it is there.")] = False) -> None:
    """Download a task's rows from where data/catalog.toml or the task says, or from an address, into data/raw."""
    task = Task.load(name).with_data(data)
    file = task.fetch(force)
    print(f"{file.stat().st_size / 1e6:.1f} MB → {file}")


@app.command()
def clean(name: TaskName, data: Data = None, work: Work = None, force: Force = False) -> None:
    """Read the raw rows, clean and split them."""
    from tagwright.dataset import clean

    task, folders = _open(name, work, data)
    _report(clean(task, task.raw_path(), folders.dataset, force), folders.dataset)


@app.command()
def validate(name: TaskName, data: Data = None, work: Work = None, force: Force = False) -> None:
    """Check the cleaned rows, and write a report on them."""
    from tagwright.validation import InvalidDataset, show_checks, validate

    task, folders = _open(name, work, data)
    try:
        record = validate(task, folders.dataset, folders.validation, force)
    except InvalidDataset as fault:
        show_checks(fault.record, folders.validation, Console())
        raise
    show_checks(record, folders.validation, Console())


@app.command()
def pretrain(name: TaskName,
             texts: Annotated[Path | None, typer.Option(metavar="FILE", show_default="none",
                                                        help="More texts, without labels: a csv, tsv, jsonl or parquet file "
                                                             "with the task's fields, or txt: a text a line.")] = None,
             epochs: Annotated[int, typer.Option(min=1)] = 3, data: Data = None, work: Work = None,
             force: Force = False) -> None:
    """Go on training the encoder on the task's training texts, by filling in masked words, before `train` uses it."""
    from tagwright.pretraining import pretrain

    task, folders = _open(name, work, data)
    _report(pretrain(task, folders.dataset, folders.encoder, texts, epochs, force), folders.encoder)
    print(f'to train on it, write in {task.file}, under [model]: encoder = "{folders.encoder}"')


@app.command()
def train(name: TaskName, data: Data = None, work: Work = None, force: Force = False,
          resume: Annotated[bool, typer.Option("--resume", help="Insist on going on from the last epoch of an interrupted "
                                                                "training; where there is none that fits, say why.")] = False,
          ) -> None:
    """Fine-tune the encoder on the cleaned rows.

    An interrupted training goes on after its last whole epoch when the command is run again, unless --force is given.

    Several processes, each on a GPU of its own or, where there is none, on the CPU, divide each batch among them:
    accelerate launch --multi_gpu --num_processes 2 -m tagwright.cli train TASK
    """
    from tagwright.training import is_first, train

    task, folders = _open(name, work, data)
    record = train(task, folders.dataset, folders.model, force, resume=resume)
    if is_first():
        _report(record, folders.model)


@app.command()
def tune(name: TaskName, trials: Annotated[int, typer.Option(min=1, help="Finished trials to reach in all.")] = 20,
         timeout: Annotated[float | None, typer.Option(min=0, metavar="MINUTES", show_default="none",
                                                       help="Begin no trial later than this after the start.")] = None,
         rows: Annotated[int | None, typer.Option(min=10, show_default="all", help="Training rows to use.")] = None,
         data: Data = None, work: Work = None) -> None:
    """Search for a better recipe; the same command goes on after a kill."""
    from tagwright.tuning import show_tuning, tune

    task, folders = _open(name, work, data)
    show_tuning(tune(task, folders.dataset, folders.tuning, trials, timeout, rows), Console())


@app.command()
def compare(name: TaskName, data: Data = None, work: Work = None, force: Force = False) -> None:
    """Train and compress each of the task's models, and compare them on the validation rows."""
    from tagwright.comparison import compare_models, show_comparison

    task, folders = _open(name, work, data)
    show_comparison(task, compare_models(task, folders.dataset, folders.model, folders.models, force), Console())


@app.command()
def evaluate(name: TaskName, data: Data = None, work: Work = None, force: Force = False) -> None:
    """Score the trained model on the test rows, beside the TF-IDF baseline."""
    from tagwright.evaluation import evaluate

    task, folders = _open(name, work, data)
    _report(evaluate(task, folders.dataset, folders.model, folders.evaluation, force), folders.evaluation)


@app.command()
def label_errors(name: TaskName, data: Data = None, work: Work = None) -> None:
    """Show the validation and test rows that are likeliest to have wrong labels, as `evaluate` found them."""
    from tagwright.label_errors import show_label_errors

    task, folders = _open(name, work, data)
    show_label_errors(folders.evaluation, task.name, Console())


@app.command()
def quantize(name: TaskName,
             to: Annotated[str, typer.Option(metavar="FORMATS", help="Some of fp32, int8 and q4.")] = "fp32,int8,q4",
             data: Data = None, work: Work = None, force: Force = False) -> None:
    """Export to ONNX in some formats, and score and time each of them."""
    from tagwright.onnx_export import quantize

    task, folders = _open(name, work, data)
    formats = [form.strip() for form in to.split(",")]
    record = quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger, force, formats)
    _report(record, folders.tagger)


@app.command()
def promote(name: TaskName, data: Data = None, work: Work = None, force: Force = False) -> None:
    """Let the best of the task's models answer: the new one, those that were compared, and the one that does now."""
    from tagwright.promotion import promote, show_promotion

    task, folders = _open(name, work, data)
    show_promotion(promote(task, folders.dataset, folders.tagger, folders.models, folders.best, force), Console())


@app.command()
def tag(what: Annotated[list[str], typer.Argument(metavar="MODEL TEXT… | FILE", help="Texts; or, with --out, a file.")],
        out: Annotated[Path | None, typer.Option(help="Write a .parquet, .csv or .jsonl file: FILE's rows with their tags.",
                                                 show_default="print")] = None,
        model: Annotated[str | None, typer.Option(help="A task's name or a model folder.",
                                                  show_default="the only one there is")] = None,
        text: Annotated[str | None, typer.Option(metavar="COLUMN", help="FILE's column that holds the text.",
                                                 show_default="those that the model reads")] = None,
        work: Work = None) -> None:
    """Tag texts, or all rows of a FILE (csv, tsv, jsonl, parquet; txt: a text a line), with an int8 model.

    A run over a file that was stopped, however, is taken up again by the same command.
    """
    from tagwright.bulk import tag_file

    if out is None:
        name, *texts = [model, *what] if model else what
        if not texts:
            raise TagwrightError(f"to tag the rows of {name}, name a file to write: --out tags.parquet" if Path(name).is_file()
                                 else f"no texts; give them after the model: tagwright tag {name} 'a text'")
        _show_tags(_model_folder(name, work), texts)
        return
    if len(what) != 1:
        raise TagwrightError("with --out give one file, and the model by --model")
    folder = _model_folder(model, work)
    try:
        _show_tagged(tag_file(folder, Path(what[0]), out, text), folder, out)
    except KeyboardInterrupt:
        raise Paused("stopped; what is tagged is kept, and the same command goes on from there", code=130) from None


@app.command()
def bulk(model: Annotated[str, typer.Argument(metavar="MODEL", help="A task's name or a model folder.")],
         source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A parquet file, or a folder of such.")],
         out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write: a file of the same name for each one.")],
         text: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that holds the text.",
                                                  show_default="those that the model reads")] = None,
         address: Annotated[str | None, typer.Option(metavar="HOST:PORT", show_default="this machine's cores",
                                                     help="A Ray cluster of which this machine is a part (auto: the one that "
                                                          "runs here). Every machine must see MODEL, SOURCE and OUT under the "
                                                          "same paths, and have this version of Tagwright.")] = None,
         work: Work = None) -> None:
    """Tag all rows of parquet files of any size by Ray Data, on a cluster's cores or this machine's.

    A run that was stopped is taken up again by the same command; files that are tagged, and have not changed since, are
    left as they are.
    """
    from tagwright.cluster import tag_parquet

    folder = _model_folder(model, work)
    try:
        counts = tag_parquet(folder, source, out, text, address)
    except KeyboardInterrupt:
        raise Paused("stopped; what is tagged is kept, and the same command goes on from there", code=130) from None
    print(f"{counts['files'] - counts['skipped']:,} of {counts['files']:,} files tagged with {folder} → {out}"
          + (f"; {counts['skipped']:,} were there" if counts["skipped"] else ""))
    _show_counts(counts, f"{out}/*.rejected.jsonl")


@app.command()
def add_label(model: Annotated[str, typer.Argument(metavar="MODEL", help="A task's name or a model folder.")],
              label: Annotated[str, typer.Argument(help="The new label's name, as texts would say it.")],
              description: Annotated[str, typer.Option(help="One sentence on what it is for.", show_default="none")] = "",
              work: Work = None) -> None:
    """Give a multilabel model a label that has no examples yet, by its name; nothing is trained."""
    from tagwright.onnx_export import add_labels

    folder = _model_folder(model, work)
    manifest = add_labels(folder, {label: description})
    print(f"{label!r} added: {len(manifest.labels)} labels, {len(manifest.added)} of them by name → {folder}")
    print(f"it is given where its score is {manifest.thresholds[-1]:.2f} or more")


@app.command()
def explain_hue(genres: Annotated[list[str], typer.Argument(metavar="GENRE…", help='A genre, or a path: "Fiction » Romance".')],
                model: Annotated[str | None, typer.Option(help="A task's name or a model folder, whose own map then tells it.",
                                                          show_default="the table and nearness in meaning")] = None,
                work: Work = None) -> None:
    """Say which colours a cover of this genre has, and why."""
    from tagwright import hues

    def embed(names: list[str]):
        from tagwright.model import embed_names  # here: the genres of the table need no torch

        return embed_names(hues.ENCODER, names)

    parts = list(dict.fromkeys(part for genre in genres for part in hues.genre_parts(genre)))
    if not parts:
        raise TagwrightError("no genre; give one, or a path of genres")
    reasons = hues.load_map(_model_folder(model, work) / hues.MAP) if model else hues.build_map(genres, embed)
    for part in parts:
        print(reasons.get(part, f"{part}: no hues (the model's data set has no such genre)"))


@app.command()
def publish(model: Annotated[str, typer.Argument(metavar="MODEL", help="A task's name or a model folder.")],
            to: Annotated[str, typer.Option(metavar="PLACE", help="hf://user/name, s3://bucket/prefix or a folder.")],
            work: Work = None) -> None:
    """Publish a model to the Hugging Face hub, to S3 or to a folder, in place of the version that is there.

    Readers get the old version until the new one is there whole. The hub's token is HF_TOKEN or that of `hf auth login`; S3
    is reached as AWS's own tools reach it (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on; AWS_ENDPOINT_URL for others' S3).
    """
    from tagwright.publishing import publish

    manifest = publish(_model_folder(model, work), to)
    print(f"published {manifest.task}: {len(manifest.files) + 1} files → {to}")


@app.command()
def pull(source: Annotated[str, typer.Argument(metavar="PLACE", help="hf://user/name, s3://bucket/prefix or a folder.")],
         folder: Annotated[Path, typer.Argument(help="The model folder to write; another model in it is replaced.")]) -> None:
    """Fetch a published model; the folder appears, or changes, when every checksum fits."""
    from tagwright.publishing import pull

    manifest = pull(source, folder)
    print(f"pulled {manifest.task}: {len(manifest.labels)} labels, {len(manifest.files) + 1} files → {folder}")


@app.command()
def demo(name: TaskName, data: Data = None, work: Work = None, force: Force = False) -> None:
    """Run every stage, print what came of it, and tag the task's examples."""
    task, folders = _open(name, work, data)
    console = Console()
    records = run_pipeline(task, folders, force, console)
    show_results(records, console)
    _show_tags(folders.best, task.demo.examples)


@app.command()
def collected(db: Database = None) -> None:
    """Show what the item store holds: counts, dates, failures and what is left to fetch."""
    from tagwright.store import ItemStore

    show_collected(ItemStore(db), Console())


@app.command()
def merge(stores: Annotated[list[str], typer.Argument(metavar="STORE…", help="Item stores: SQLite files, or databases' URLs.")],
          to: Annotated[str, typer.Option(metavar="STORE", help="The item store to join them in, made where there is none.")],
          ) -> None:
    """Join several crawls: each item once, in its more complete or newer version, and what is left to fetch."""
    from tagwright.merging import merge
    from tagwright.store import ItemStore

    sources = [ItemStore(store, create=False) for store in stores]
    target = ItemStore(to)
    try:
        rows = merge(sources, target)
    except KeyboardInterrupt:
        raise Paused("stopped; the same command goes on, and stores nothing twice", code=130) from None
    table = Table(title=f"Merged into {escape(target.name)}", title_justify="left")
    table.add_column("store")
    for column in ("items", "new", "better", "as they were", "pages of work"):
        table.add_column(column, justify="right")
    for row in rows:
        counts = (row.items, row.new, row.better, row.items - row.new - row.better, row.work)
        table.add_row(escape(row.store), *(f"{count:,}" for count in counts))
    Console().print(table)


@app.command()
def export(site: Annotated[str, typer.Argument(help="The site, as `tagwright collected` names it.")],
           out: Annotated[Path | None, typer.Option(help="A .parquet, .csv (labels as JSON) or .jsonl file.",
                                                    show_default="data/collected/SITE.parquet")] = None,
           db: Database = None) -> None:
    """Write a site's collected items as a table that `clean` reads, with a task file for it beside it."""
    from tagwright.export import export, form_of, write_task
    from tagwright.store import ItemStore

    file, store = out or ROOT / "data" / "collected" / f"{site}.parquet", ItemStore(db)
    count = export(store, site, file)
    task = write_task(site, file, form_of(store, site))
    print(f"{count:,} rows → {file}")
    print(f"its task: {task}; next: make demo TASK={task}")
    if file.name not in task.read_text(encoding="utf8"):
        print(f"note: that task was there before and names another table: its source.path is yours to change to {file.name}")


@app.command()
def where(name: TaskName, data: Data = None, work: Work = None) -> None:
    """Print the folder of the task's model that answers."""
    print(_open(name, work, data)[1].answering)


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


def _open(name: str, work: Path | None, data: str | None = None) -> tuple[Task, Folders]:
    task = Task.load(name).with_data(data)
    return task, Folders.of(task, work)


def _model_folder(name: str | None, work: Path | None) -> Path:
    """The model folder itself, or that of a task; without a name the only one in the work folder."""
    if name is not None:
        return Path(name) if (Path(name) / MANIFEST).is_file() else _open(name, work)[1].answering
    root = work or ROOT / "data" / "work"
    found = sorted({manifest.parent.parent for name in ("best", "tagger") for manifest in root.glob(f"*/{name}/{MANIFEST}")})
    if not found:
        raise TagwrightError(f"{root} holds no model yet; `tagwright demo TASK` makes one, or name a model folder with --model")
    if len(found) > 1:
        raise TagwrightError(f"which model? Choose with --model: {', '.join(folder.name for folder in found)}")
    return Folders.under(found[0]).answering


def _show_tagged(counts: dict, folder: Path, out: Path) -> None:
    print(f"{counts['written']:,} of {counts['rows']:,} rows tagged with {folder} → {out}")
    if counts["fields_missing"]:
        print(f"  the model also reads {', '.join(counts['fields_missing'])}, which the file does not have")
    _show_counts(counts, f"{out}.rejected.jsonl")


def _show_counts(counts: dict, rejected: str) -> None:
    if counts["rejected"]:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in counts["rejected"].most_common(MAX_REASONS))
        print(f"  {sum(counts['rejected'].values()):,} rejected ({reasons}) → {rejected}")
    if counts["resumed"]:
        print(f"  {counts['resumed']:,} rows had been tagged by an earlier run that was stopped")
    rate = (counts["written"] - counts["resumed"]) / max(counts["seconds"], 0.1)
    print(f"  {counts['seconds']:.1f} s, {rate:,.0f} rows/s")


def _report(record: dict, folder: Path) -> None:
    if record.get("skipped"):
        print(f"{record['stage']}: skipped, nothing has changed since {record['finished']} → {folder}")
        return
    for key in ("rows", "labels", "metrics", "hues"):
        for name, value in record.get(key, {}).items():
            pairs = value.items() if isinstance(value, dict) else [("", value)]
            print(f"  {key}  {name}  " + "  ".join(f"{inner} {number}".strip() for inner, number in pairs))
    print(f"{record['stage']}: done in {record['seconds']:.1f} s → {folder}")


def _show_tags(folder: Path, texts: list) -> None:
    """What a model gives to texts, and, where its labels are genres of covers, their colours."""
    from tagwright.hues import MAP, hues_of, load_map
    from tagwright.tagger import Tagger

    tagger = Tagger.load(folder)
    reasons = load_map(folder / MAP) if tagger.manifest.hues == "mapped" else {}
    for text, tags in zip(texts, tagger.tag(texts), strict=True):
        shown = text if isinstance(text, str) else next(iter(text.values()), "")
        given = "  ".join(f"{label} {score:.2f}" for label, score in tags)
        print(f"\n{shown}\n    {given or 'no label above its threshold'}")
        if colours := hues_of([label for label, _ in tags], reasons):
            print(f"    colours: {', '.join(colours)}")


def main() -> None:
    """The console script."""
    run(app)


if __name__ == "__main__":
    main()
