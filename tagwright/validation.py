"""Whether a cleaned data set is fit to train on: the stage `validate()`, between cleaning and training.

A check passes, warns or fails. What it found goes into `checks.json` for programs and into `report.html`, one page without
scripts or other files, for people; then a data set that fails stops the pipeline.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
from rich.console import Console
from rich.markup import escape as plain
from rich.table import Table
from scipy.stats import hypergeom

from tagwright.dataset import SPLITS, Dataset, Row, find_twins
from tagwright.errors import TagwrightError
from tagwright.stage import Stage, write_json
from tagwright.task import Task

REPORT, CHECKS = "report.html", "checks.json"
PASS, WARN, FAIL, NOT_RUN = "pass", "warn", "fail", "not run"
LONGEST_TEXT = 100_000  # characters: more is a quote that was never closed, or a whole book
MAX_RATIO = 100  # rows of the most frequent label for each of the rarest
MAX_REJECTED = 0.2  # share of the rows that were read
CHANCE = 0.01  # of a data set without drift to be said to have some
MAX_EXAMPLES, MAX_TEXT, MAX_LABELS = 5, 160, 40  # that are shown

EXPLAINED = {
    "label list": "labels.json is a list of at least two different names.",
    "schema": "Every file has the columns line (whole numbers), text (strings), labels (lists of strings) and, where the "
              "labels stand for colours, hues (lists of strings), no others, and no cell without a value.",
    "line numbers": "Lines are counted from 1.",
    "texts": "No text is empty.",
    "text lengths": f"No text is longer than {LONGEST_TEXT:,} characters.",
    "labels": "Every row has labels of labels.json, none of them twice, and exactly one where the task is multiclass.",
    "duplicates": "No text stands twice in one of the files. A published test set stays as it is, so that its rows only warn.",
    "contradictions": "Rows with the same text have the same labels, whichever files they are in.",
    "leakage": "No text stands in two of the files: a model is not scored, or chosen, by rows that it has learned.",
    "near leakage": "Nor does a near duplicate: a text that shares most of its three-word sequences, as many as the task's "
                    "split.near_duplicate says.",
    "class balance": f"The most frequent label has at most {MAX_RATIO} times the rows of the rarest, and every label has rows "
                     "to learn it from and rows to score it on.",
    "drift": "Each label has the same share of the training rows as of the others, or differs by no more than chance explains "
             f"(exact test; for all labels together, chance is given {CHANCE:.0%}).",
    "rejected rows": f"Cleaning refused at most {MAX_REJECTED:.0%} of the rows that were read. The first row for each reason:",
}


@dataclass
class Check:
    """What one check found. Each of the `examples`, the first of `count` faults, has a `detail`, and where it is a row its
    `file`, `row` (from 1), `line`, `source` (the raw file that the line is one of) and the beginning of its `text`."""

    name: str
    status: str
    found: str
    count: int = 0
    examples: list[dict] = field(default_factory=list)

    @property
    def explanation(self) -> str:
        return EXPLAINED[self.name]


class InvalidDataset(TagwrightError):
    """A data set is not fit to train on; `record` is that of the stage."""

    def __init__(self, text: str, record: dict):
        super().__init__(text)
        self.record = record


def validate(task: Task, data_dir: Path, out_dir: Path, force: bool = False) -> dict:
    """The validation stage: writes `checks.json` and `report.html`, and returns the run record, whose `checks` says of each
    check how it ended and what it found.

    Raises TagwrightError where the data set is missing, and InvalidDataset, when all is written, where a check has failed.
    """
    dataset = Dataset.load(data_dir, task.name)
    files = [*(data_dir / f"{split}.parquet" for split in SPLITS), data_dir / "labels.json", data_dir / "rejected.jsonl"]
    if not files[-1].is_file():
        raise TagwrightError(f"{files[-1]}: not there; make it again with `tagwright clean {task.name} --force`")
    stage = Stage("validate", out_dir, files, task.model_dump(include={"name", "title", "kind", "source", "labels", "split"}))
    record = None if force else stage.unchanged()
    if record is None:
        parts = {split: getattr(dataset, split) for split in SPLITS}
        checks = run_checks(task, dataset.labels, parts, files[-1])
        counts = _label_counts(dataset.labels, parts) if _readable(checks) else pd.DataFrame(columns=SPLITS)
        stage.record |= {"rows": {split: len(part) for split, part in parts.items()},
                         "checks": {check.name: {"status": check.status, "found": check.found} for check in checks}}
        with stage.writing() as folder:
            write_json(folder / CHECKS, {
                "task": task.name, "rows": stage.record["rows"], "label_rows": counts.to_dict("index"),
                "checks": [asdict(check) | {"explanation": check.explanation} for check in checks]})
            (folder / REPORT).write_text(_page(task, stage.record["rows"], checks, counts), encoding="utf8")
        record = stage.record
    if any(check["status"] == FAIL for check in record["checks"].values()):
        raise InvalidDataset(_refusal(data_dir, out_dir), record)
    return record


def show_checks(record: dict, out_dir: Path, console: Console) -> None:
    """The checks of a stage's record as a table, and where the report is."""
    colours = {PASS: "green", WARN: "yellow", FAIL: "bold red", NOT_RUN: "dim"}
    table = Table(title="Validation", title_justify="left")
    for column in ("check", "result", "found"):
        table.add_column(column, overflow="fold")
    for name, check in record["checks"].items():
        table.add_row(name, f"[{colours[check['status']]}]{check['status']}[/]", plain(check["found"]))
    console.print(table)
    console.print(f"report: {out_dir / REPORT}", soft_wrap=True, highlight=False, markup=False)


def summary(record: dict) -> str:
    """The checks of a stage's record in one line."""
    count = Counter(check["status"] for check in record["checks"].values())
    warned = [name for name, check in record["checks"].items() if check["status"] == WARN]
    return f"{count[PASS]} of {count.total()} checks passed" + (f"; warnings: {', '.join(warned)}" if warned else "")


def _refusal(data_dir: Path, out_dir: Path) -> str:
    failed = [check for check in json.loads((out_dir / CHECKS).read_text(encoding="utf8"))["checks"] if check["status"] == FAIL]
    first = failed[0]
    faults = "; ".join(f"{_place(example)}: {example['detail']}" for example in first["examples"][:3])
    others = f" (also failed: {', '.join(check['name'] for check in failed[1:])})" if failed[1:] else ""
    return f"{data_dir}: {first['name']}: {first['found']}: {faults}{others}; report: {out_dir / REPORT}"


# --- the checks --------------------------------------------------------------------------------------------------


def run_checks(task: Task, labels: list[str], parts: dict[str, pd.DataFrame], rejected: Path) -> list[Check]:
    """All checks of a data set whose splits are `parts`; where a file is not what it should be, the others are not run."""
    checks = [_label_list(labels), _schema(task, parts)]
    if not _readable(checks):
        return checks + [Check(name, NOT_RUN, "the data set cannot be read") for name in list(EXPLAINED)[len(checks):]]
    parts = {split: part.assign(labels=part["labels"].map(tuple)) for split, part in parts.items()}
    return [*checks, *_cells(task, labels, parts), _contradictions(task, parts), _leakage(task, parts),
            _near_leakage(task, parts), _balance(labels, parts), _drift(labels, parts),
            _rejected(rejected, sum(map(len, parts.values())))]


def _readable(checks: list[Check]) -> bool:
    return all(check.status == PASS for check in checks[:2])


def _label_list(labels: object) -> Check:
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        return _failed("label list", [{"file": "labels.json", "detail": "not a list of names"}])
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        return _failed("label list", [{"file": "labels.json", "detail": f"{label!r} twice"} for label in twice])
    if len(labels) < 2:
        return _failed("label list", [{"file": "labels.json", "detail": "fewer than two labels: nothing to tell apart"}])
    return Check("label list", PASS, f"{len(labels):,} labels")


def _schema(task: Task, parts: dict[str, pd.DataFrame]) -> Check:
    def is_list(cell) -> bool:
        return isinstance(cell, np.ndarray) and all(isinstance(label, str) for label in cell)

    lists = ["labels", "hues"] if task.labels.hues else ["labels"]
    schema = pa.DataFrameSchema({
        "line": pa.Column("int64"), "text": pa.Column(str),
        **{name: pa.Column(object, pa.Check(is_list, element_wise=True)) for name in lists},
    }, strict=True)
    words = {"column_in_schema": "a column that does not belong there", "column_in_dataframe": "the column is missing",
             "not_nullable": "no value"}
    types = {"line": "not whole numbers", "text": "not strings"} | dict.fromkeys(lists, "not lists of strings")
    examples = []
    for split, part in parts.items():
        seen = set()  # a cell without a value is of the wrong type too
        for fault in _faults(schema, part):
            column = fault.failure_case if fault.column is None else fault.column
            if (column, fault.index) not in seen:
                examples.append(_row(task, split, part, fault.index, f"{column}: {words.get(fault.check) or types[column]}"))
            seen.add((column, fault.index))
        if not len(part):
            examples.append({"file": f"{split}.parquet", "detail": "no rows"})
    return _failed("schema", examples) if examples else Check("schema", PASS, f"{sum(map(len, parts.values())):,} rows")


def _cells(task: Task, labels: list[str], parts: dict[str, pd.DataFrame]) -> Iterator[Check]:
    """The checks of single cells, and of texts that are twice in a file: pandera's, by the check that each belongs to."""
    known = set(labels)
    one = [pa.Check(lambda given: given.map(len) <= 1, error="several labels")] if task.kind == "multiclass" else []
    schema = pa.DataFrameSchema({
        "line": pa.Column(checks=pa.Check.ge(1, error="not 1 or more")),
        "text": pa.Column(checks=[pa.Check(lambda texts: texts.str.strip() != "", error="empty"),
                                  pa.Check.str_length(max_value=LONGEST_TEXT, error="too long")],
                          unique=True, report_duplicates="exclude_first"),
        "labels": pa.Column(checks=[
            pa.Check(lambda given: given.map(len) > 0, error="no label"),
            pa.Check(lambda given: given.map(known.issuperset), error="unknown label"),
            pa.Check(lambda given: given.map(lambda row: len(set(row)) == len(row)), error="a label twice"), *one]),
    })
    homes = {"not 1 or more": "line numbers", "empty": "texts", "too long": "text lengths", "field_uniqueness": "duplicates"}
    found = {name: [] for name in ("line numbers", "texts", "text lengths", "labels", "duplicates")}
    for split, part in parts.items():
        firsts = dict(zip(part["text"][::-1], part.index[::-1], strict=True))  # text -> where it is first
        for fault in _faults(schema, part):
            detail = fault.check
            if fault.column == "labels":
                shown = [label for label in fault.failure_case if label not in known] or fault.failure_case
                detail += f": {', '.join(map(repr, shown))[:MAX_TEXT]}" if shown else ""
            elif fault.check == "field_uniqueness":
                detail = f"the same text as row {firsts[fault.failure_case] + 1}"
            elif fault.check == "too long":
                detail = f"{len(fault.failure_case):,} characters"
            found[homes.get(fault.check, "labels")].append(_row(task, split, part, fault.index, detail))
    for name, examples in found.items():
        frozen = name == "duplicates" and all(_is_frozen(task, example["file"]) for example in examples)
        yield _judged(name, examples, WARN if frozen or name == "text lengths" else FAIL)


def _contradictions(task: Task, parts: dict[str, pd.DataFrame]) -> Check:
    rows = _together(parts)
    rows["given"] = rows["labels"].map(lambda labels: tuple(sorted(labels)))
    examples = []
    for _, group in rows[rows.duplicated("text", keep=False)].groupby("text", sort=False):
        first = group.iloc[0]
        for other in group[group["given"] != first["given"]].itertuples():
            detail = f"{_names(other.given)} here, {_names(first['given'])} in {first['split']}.parquet row {first['row'] + 1}"
            examples.append(_row(task, other.split, parts[other.split], other.row, detail)
                            | {"frozen": _is_frozen(task, f"{other.split}.parquet", f"{first['split']}.parquet")})
    frozen = [example.pop("frozen") for example in examples]
    return _judged("contradictions", examples, WARN if all(frozen) else FAIL)


def _leakage(task: Task, parts: dict[str, pd.DataFrame]) -> Check:
    rows = _together(parts)
    examples = []
    for _, group in rows[rows.duplicated("text", keep=False)].groupby("text", sort=False):
        first = group.iloc[0]
        for other in group[group["split"] != first["split"]].itertuples():
            detail = f"the same text as {first['split']}.parquet row {first['row'] + 1}"
            examples.append(_row(task, other.split, parts[other.split], other.row, detail))
    return _judged("leakage", examples)


def _near_leakage(task: Task, parts: dict[str, pd.DataFrame]) -> Check:
    """Twins across the splits: of the test rows among all others, then of the validation rows among the training rows."""
    examples = []
    for held, others in (("test", ("validation", "train")), ("validation", ("train",))):
        splits = [(split, row) for split in (held, *others) for row in range(len(parts[split]))]
        rows = [Row(row, {}, parts[split]["text"].iloc[row], is_test=split == held) for split, row in splits]
        for index, twin in find_twins(rows, task.split.near_duplicate):
            if twin is None or not rows[twin].is_test or rows[twin].text == rows[index].text:
                continue
            split, row = splits[index]
            detail = f"nearly the same text as {held}.parquet row {rows[twin].line + 1}"
            examples.append(_row(task, split, parts[split], row, detail))
    return _judged("near leakage", examples)


def _balance(labels: list[str], parts: dict[str, pd.DataFrame]) -> Check:
    counts = _label_counts(labels, parts)
    total = counts.sum(axis=1)
    rarest, commonest = total.idxmin(), total.idxmax()
    ratio = total.max() / max(total.min(), 1)
    examples = []
    if ratio > MAX_RATIO:
        examples.append({"detail": f"{total.max():,} rows of {commonest!r} for {total.min():,} of {rarest!r}"})
    for split, what in (("train", "learn it from"), ("test", "score it on")):
        examples += [{"file": f"{split}.parquet", "detail": f"no row of {label!r} to {what}"}
                     for label in counts.index[counts[split] == 0]]
    missing = {split: int((counts[split] == 0).sum()) for split in ("train", "test")}
    found = (f"largest : smallest = {ratio:.1f}; labels without a training row: {missing['train']}, "
             f"without a test row: {missing['test']}")
    return Check("class balance", WARN if examples else PASS, found, len(examples), examples[:MAX_EXAMPLES])


def _drift(labels: list[str], parts: dict[str, pd.DataFrame]) -> Check:
    """Fisher's exact test of each label in two splits, two-sided by doubling, with Bonferroni's correction."""
    counts, sizes = _label_counts(labels, parts), {split: len(part) for split, part in parts.items()}
    tests = 2 * len(labels)
    drifted = []  # (p, detail)
    for split in ("validation", "test"):
        total, seen = sizes["train"] + sizes[split], counts["train"] + counts[split]
        tails = (hypergeom.cdf(counts[split], total, seen, sizes[split]),
                 hypergeom.sf(counts[split] - 1, total, seen, sizes[split]))
        chance = np.minimum(2 * np.minimum(*tails) * tests, 1)
        for label, p in zip(labels, chance, strict=True):
            if p < CHANCE:
                shares = [counts.loc[label, name] / sizes[name] for name in ("train", split)]
                drifted.append((p, f"{label!r}: {shares[0]:.1%} of the training rows, {shares[1]:.1%} of the {split} rows"))
    examples = [{"detail": detail} for _, detail in sorted(drifted)]
    found = f"{len(examples):,} of {tests:,} shares differ by more than chance" if examples else "no more than chance"
    return Check("drift", WARN if examples else PASS, found, len(examples), examples[:MAX_EXAMPLES])


def _rejected(file: Path, kept: int) -> Check:
    reasons, firsts = Counter(), {}
    try:
        with file.open(encoding="utf8") as lines:
            for entry in map(json.loads, lines):
                reasons[entry["reason"]] += 1
                firsts.setdefault(entry["reason"], entry)
    except (ValueError, KeyError, TypeError) as error:
        raise TagwrightError(f"{file}: damaged ({error}); make it again with `tagwright clean --force`") from None
    share = reasons.total() / (reasons.total() + kept)
    examples = [{"line": firsts[reason]["line"], "source": firsts[reason]["file"],
                 "detail": ": ".join(filter(None, [reason, _short(firsts[reason]["detail"])]))}
                for reason, _ in reasons.most_common(MAX_EXAMPLES)]
    why = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common())
    found = f"{reasons.total():,} of {reasons.total() + kept:,} ({share:.1%})" + (f": {why}" if why else "")
    return Check("rejected rows", WARN if share > MAX_REJECTED else PASS, found, reasons.total(), examples)


# --- what they share ---------------------------------------------------------------------------------------------


def _faults(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> Iterable:
    """What pandera finds: `column`, `check`, `failure_case` and, for a single cell, `index`; by rows."""
    try:
        schema.validate(frame.reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as found:
        faults = found.failure_cases[["column", "check", "failure_case", "index"]].astype(object)
        return faults.where(faults.notna(), None).sort_values("index", kind="stable", key=lambda at: at.fillna(-1)).itertuples()
    return []


def _judged(name: str, examples: list[dict], status: str = FAIL) -> Check:
    return _failed(name, examples, status) if examples else Check(name, PASS, "nothing found")


def _failed(name: str, examples: list[dict], status: str = FAIL) -> Check:
    count = len(examples)
    return Check(name, status, f"{count:,} fault{'s' * (count > 1)}", count, examples[:MAX_EXAMPLES])


def _row(task: Task, split: str, part: pd.DataFrame, row: int | None, detail: str) -> dict:
    """An example: a row of a split, or, where `row` is None, the whole file."""
    example = {"file": f"{split}.parquet", "detail": detail}
    if row is None:
        return example
    cells = part.iloc[int(row)]
    line = cells.get("line")
    source = task.source.member or task.source.path
    if split == "test" and task.split.by == "file":
        source = task.source.test_member or task.source.test_path
    return example | {"row": int(row) + 1, "line": int(line) if pd.notna(line) else None, "source": source,
                      "text": _short(str(cells.get("text", "")))}


def _place(example: dict) -> str:
    """Where it is, as "train.parquet row 5 (line 17 of rows.jsonl)"."""
    raw = f"line {example['line']} of {example['source']}" if example.get("line") is not None else ""
    if "file" not in example:
        return raw
    row = f" row {example['row']}" if "row" in example else ""
    return example["file"] + row + (f" ({raw})" if raw else "")


def _is_frozen(task: Task, *files: str) -> bool:
    """Whether these hold a published test set only, in which nothing is changed."""
    return task.split.by != "stratified" and set(files) == {"test.parquet"}


def _together(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(part.assign(split=split, row=range(len(part))) for split, part in parts.items())


def _label_counts(labels: list[str], parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of each label, (labels, splits)."""
    counts = {split: Counter(label for row in part["labels"] for label in set(row)) for split, part in parts.items()}
    return pd.DataFrame({split: [count[label] for label in labels] for split, count in counts.items()}, index=labels)


def _names(labels: Iterable[str]) -> str:
    return ", ".join(map(repr, labels)) or "none"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


# --- the report --------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light; --ink: #1b1b1b; --soft: #5c5c5c; --line: #dcdcdc; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 52rem; padding: 1rem; color: var(--ink); background: #fff;
       font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: .5rem 0 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .2rem; }
p { margin: .3rem 0; }
.soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
.number { text-align: right; white-space: nowrap; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
.mark { display: inline-block; min-width: 4.2rem; text-align: center; border-radius: .3rem; padding: 0 .5rem; font-size: .9rem;
        font-weight: 600; white-space: nowrap; }
.pass { background: #d9f0e4; color: #00513a; }
.warn { background: #ffe9b8; color: #5c4000; }
.fail { background: #b3261e; color: #fff; }
.not-run { background: #e8e8e8; color: #444; }
.verdict { border-radius: .4rem; padding: .6rem .8rem; margin: .8rem 0; font-weight: 600; }
ul { margin: .3rem 0; padding-left: 1.1rem; }
li { margin: .35rem 0; }
q { display: block; color: var(--soft); font-size: .92rem; }
td:first-child a { overflow-wrap: normal; white-space: nowrap; }
.bars { display: block; width: 100%; min-width: 6rem; height: 1.5rem; }
.train { fill: #0072B2; } .validation { fill: #E69F00; } .test { fill: #009E73; }
.key { white-space: nowrap; margin-left: .8rem; }
.key svg { width: .8rem; height: .8rem; margin-right: .3rem; vertical-align: -.05rem; }
a { color: inherit; }
@media (max-width: 34rem) { .wide { display: none; } body { padding: .8rem; } }
"""
WORDS = {PASS: "Fit to train on", WARN: "Fit to train on, with warnings", FAIL: "Not fit to train on"}


def _page(task: Task, rows: dict[str, int], checks: list[Check], counts: pd.DataFrame) -> str:
    """The report. What comes from the data is escaped; the policy forbids scripts and whatever is elsewhere."""
    order = (FAIL, WARN, PASS, NOT_RUN)
    worst = min((check.status for check in checks), key=order.index)
    title = f"{escape(task.name)}: is the data set sound?"
    sizes = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    lines = "\n".join(
        f'<tr><td><a href="#{_slug(check.name)}">{escape(check.name)}</a></td><td>{_mark(check.status)}</td>'
        f'<td class="wide">{escape(check.found)}</td></tr>' for check in checks)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="soft">{escape(task.title)}. Rows: {sizes}.</p>
<p class="verdict {worst}">{WORDS[worst]}</p>
<table>
<thead><tr><th>check</th><th>result</th><th class="wide">found</th></tr></thead>
<tbody>
{lines}
</tbody>
</table>
<h2>Each check, the worst first</h2>
{"".join(map(_section, sorted(checks, key=lambda check: order.index(check.status))))}
{_balance_table(rows, counts)}
</body>
</html>
"""


def _section(check: Check) -> str:
    items = "".join(
        f"<li>{'<b>' + escape(_place(example)) + '</b>: ' if _place(example) else ''}{escape(example['detail'])}"
        + (f"<q>{escape(example['text'])}</q>" if example.get("text") else "") + "</li>\n" for example in check.examples)
    more = check.count - len(check.examples)
    if more > 0 and check.name != "rejected rows":
        items += f"<li>… and {more:,} more</li>\n"
    return (f'<section id="{_slug(check.name)}">\n<h3>{_mark(check.status)} {escape(check.name)}</h3>\n'
            f'<p class="soft">{escape(check.explanation)}</p>\n<p>{escape(check.found)}</p>\n'
            + (f"<ul>\n{items}</ul>\n" if items else "") + "</section>\n")


def _balance_table(rows: dict[str, int], counts: pd.DataFrame) -> str:
    """Each label's share of every split as three bars."""
    if counts.empty:
        return ""
    shares = counts / pd.Series(rows).clip(lower=1)
    longest = max(shares.to_numpy().max(), 1e-9)
    shown = shares.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index[:MAX_LABELS]]
    lines = "\n".join(
        f'<tr><td>{escape(label)}</td><td><svg class="bars" viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
        + "".join(f'<rect class="{split}" y="{5 * place}" width="{100 * share[split] / longest:.1f}" height="4"/>'
                  for place, split in enumerate(SPLITS))
        + "</svg></td>" + "".join(f'<td class="number{" wide" if split == "validation" else ""}">{share[split]:.1%}</td>'
                                  for split in SPLITS) + "</tr>"
        for label, share in shown.iterrows())
    keys = " ".join(f'<span class="key"><svg viewBox="0 0 1 1"><rect class="{split}" width="1" height="1"/></svg>{split}</span>'
                    for split in SPLITS)
    rarer = len(counts) - len(shown)
    rest = f'<p class="soft">… and {rarer:,} rarer labels: see {CHECKS}.</p>' if rarer else ""
    heads = "".join(f'<th class="number{" wide" if split == "validation" else ""}">{split}</th>' for split in SPLITS)
    return f"""<h2>Class balance</h2>
<p class="soft">Share of each split's rows that have a label:{keys}</p>
<table>
<thead><tr><th>label</th><th></th>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
</table>
{rest}"""


def _mark(status: str) -> str:
    return f'<span class="mark {status.replace(" ", "-")}">{status}</span>'


def _slug(name: str) -> str:
    return name.replace(" ", "-").replace(".", "-")
