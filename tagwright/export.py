"""From the item store to a table that `tagwright clean` reads, with a task file for it beside it."""

import csv
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tagwright.errors import TagwrightError
from tagwright.store import Item, ItemStore

BATCH = 2_000  # rows
TASK = '''# Made by `tagwright export {site}`; it is yours to change, and is not written again while it is here.
name = "{name}"
title = "{title}"

[source]
path = {file}
attribution = "{attribution}"
# licence = "CC BY-SA 4.0"   # the one under which the site gives its content, for the model card

[input]
fields = ["title", "{body}"]
html = ["{body}"]
template = "{{title}}\\n\\n{{{body}}}"

[labels]
field = "{labels}"
{label_keys}min_share = 0.002      # {labels} on fewer than 0.2 % of the rows are dropped
min_rows = 8
'''


class Form(NamedTuple):
    """How the items of a site become a table and a task: `columns` are the table's, with the item's fields that fill them, and
    `label_keys` are lines for the task's [labels]."""

    title: str
    attribution: str
    body: str
    labels: str
    columns: dict[str, str]
    label_keys: str = ""

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(name, pa.list_(pa.string()) if name == self.labels else pa.string()) for name in self.columns])

    def row(self, item: Item) -> dict:
        return {name: getattr(item, field) for name, field in self.columns.items()}


QUESTIONS = Form("Questions of {site} → tags", "Questions and tags by the users of {site}.", "description", "tags",
                 {"title": "title", "url": "url", "description": "body", "tags": "tags"})
BOOKS = Form("Books of {site} → genres", "Titles, blurbs and genres by the authors of {site}.", "blurb", "genres",
             {"title": "title", "author": "author", "blurb": "body", "genres": "tags", "url": "url"},
             'format = "paths"        # "Fiction » Romance": each part but "fiction" is a label\n'
             'most_telling = 10       # of a book\'s genres those that the fewest other books have\n'
             'hues = "mapped"         # each genre stands for colours of a cover\n')


def form_of(store: ItemStore, site: str) -> Form:
    """The form of what a site's collectors have brought: books where they were sent for books, else questions."""
    return BOOKS if store.count_work(site, "book") else QUESTIONS


def export(store: ItemStore, site: str, file: Path) -> int:
    """Write a site's items as the columns title, url, description (HTML) and tags, or, for books, title, author, blurb (HTML),
    genres (each a path, `Fiction » Romance`) and url; returns the number of rows.

    The file's ending chooses parquet, CSV (labels as JSON) or JSON Lines. It is written whole or not at all. Raises
    TagwrightError for another ending, a site without items, or a file that cannot be written.
    """
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
    if file.suffix not in writers:
        raise TagwrightError(f"{file}: the ending must be one of {', '.join(writers)}")
    count = store.count(site)
    if not count:
        known = sorted({row[0] for row in store.summary()["items"]})
        raise TagwrightError(f"{store.name} holds no items of {site!r}; it holds: {', '.join(known) or 'none at all'}")
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writers[file.suffix](partial, store.items(site), form_of(store, site))
        os.replace(partial, file)
    except OSError as error:
        raise TagwrightError(f"{file}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # not there, or never begun
            partial.unlink()
    return count


def write_task(site: str, file: Path, form: Form = QUESTIONS) -> Path:
    """Write a task file for an exported table beside it, unless there is one; returns its path."""
    task = file.with_suffix(".toml")
    if not task.exists():
        name = re.sub(r"[^a-z0-9]+", "-", site.lower()).strip("-") + "-collected"
        values = {"name": name, "title": form.title.format(site=site), "attribution": form.attribution.format(site=site)}
        task.write_text(TASK.format(site=site, file=json.dumps(file.name, ensure_ascii=False), body=form.body,
                                    labels=form.labels, label_keys=form.label_keys, **values), encoding="utf8")
    return task


def _write_parquet(path: Path, items: Iterator[Item], form: Form) -> None:
    with pq.ParquetWriter(path, form.schema) as writer:
        while rows := [form.row(item) for item in islice(items, BATCH)]:
            writer.write_table(pa.Table.from_pylist(rows, form.schema))


def _write_csv(path: Path, items: Iterator[Item], form: Form) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, form.columns)
        writer.writeheader()
        writer.writerows(row | {form.labels: json.dumps(row[form.labels], ensure_ascii=False)} for row in map(form.row, items))


def _write_jsonl(path: Path, items: Iterator[Item], form: Form) -> None:
    with path.open("w", encoding="utf8") as file:
        file.writelines(json.dumps(form.row(item), ensure_ascii=False) + "\n" for item in items)
