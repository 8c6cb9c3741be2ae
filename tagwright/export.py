"""From the item store to a table that `tagwright clean` reads, with a task file for it beside it."""

import csv
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tagwright.errors import TagwrightError
from tagwright.store import Item, ItemStore

TEXT = pa.string()
SCHEMA = pa.schema([("title", TEXT), ("url", TEXT), ("description", TEXT), ("tags", pa.list_(TEXT))])
BATCH = 2_000  # rows
TASK = '''# Made by `tagwright export {site}`; it is yours to change, and is not written again while it is here.
name = "{name}"
title = "Questions of {site} → tags"

[source]
path = {file}
attribution = "Questions and tags by the users of {site}."
# licence = "CC BY-SA 4.0"   # the one under which the site gives its content, for the model card

[input]
fields = ["title", "description"]
html = ["description"]
template = "{{title}}\\n\\n{{description}}"

[labels]
field = "tags"
min_share = 0.002      # tags on fewer than 0.2 % of the questions are dropped
min_rows = 8
'''


def export(store: ItemStore, site: str, file: Path) -> int:
    """Write a site's items as the columns title, url, description (HTML) and tags; returns the number of rows.

    The file's ending chooses parquet, CSV (tags as JSON) or JSON Lines. It is written whole or not at all. Raises
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
        writers[file.suffix](partial, store.items(site))
        os.replace(partial, file)
    except OSError as error:
        raise TagwrightError(f"{file}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # not there, or never begun
            partial.unlink()
    return count


def write_task(site: str, file: Path) -> Path:
    """Write a task file for an exported table beside it, unless there is one; returns its path."""
    task = file.with_suffix(".toml")
    if not task.exists():
        name = re.sub(r"[^a-z0-9]+", "-", site.lower()).strip("-") + "-collected"
        task.write_text(TASK.format(site=site, name=name, file=json.dumps(file.name, ensure_ascii=False)), encoding="utf8")
    return task


def _write_parquet(path: Path, items: Iterator[Item]) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        while rows := [_row(item) for item in islice(items, BATCH)]:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def _write_csv(path: Path, items: Iterator[Item]) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, SCHEMA.names)
        writer.writeheader()
        writer.writerows(row | {"tags": json.dumps(row["tags"], ensure_ascii=False)} for row in map(_row, items))


def _write_jsonl(path: Path, items: Iterator[Item]) -> None:
    with path.open("w", encoding="utf8") as file:
        file.writelines(json.dumps(_row(item), ensure_ascii=False) + "\n" for item in items)


def _row(item: Item) -> dict:
    return {"title": item.title, "url": item.url, "description": item.body, "tags": item.tags}
