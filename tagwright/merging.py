"""Several crawls into one: what some item stores hold goes into another one, each item, page and refusal once, in its better
version."""

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from tagwright.errors import TagwrightError
from tagwright.store import ItemStore, hosts_table, items_table, rejected_table, work_table

BATCH = 500  # rows
STATES = ("void", "todo", "failed", "done")  # of work, the one that tells most last


class Merged(NamedTuple):
    """What came of one store: its items, how many of them were new, and how many took a lesser version's place; and pages of
    work that were new or further on."""

    store: str
    items: int
    new: int
    better: int
    work: int


def merge(sources: Iterable[ItemStore], target: ItemStore) -> list[Merged]:
    """Take all that the sources hold into the target; they stay as they are, and the same again changes nothing.

    Of two versions of an item the one with more fields filled wins, of equal ones the newer. Work that is done in one store is
    done; what a collector holds at the moment is to do. Killed at any moment, it leaves no work done without its items.
    Raises TagwrightError where the target is one of the sources, and as the stores do.
    """
    sources = list(sources)
    if any(_is_same(source, target) for source in sources):
        raise TagwrightError(f"{target.name} cannot be merged into itself")
    return [_take_in(source, target) for source in sources]


def _take_in(source: ItemStore, target: ItemStore) -> Merged:
    items = new = better = work = 0
    for table, rows in source.rows(BATCH):
        if table is work_table:
            rows = [row | {"state": "todo", "owner": ""} if row["state"] == "taken" else row for row in rows]
        added, replaced = target.take_in(table, rows, RANKS[table])
        if table is items_table:
            items, new, better = items + len(rows), new + added, better + replaced
        elif table is work_table:
            work += added + replaced
    return Merged(source.name, items, new, better, work)


def _item_rank(row: dict) -> tuple:
    filled = [row["body"], json.loads(row["tags"]), row["author"], row["score"] is not None, row["created"] is not None]
    return sum(map(bool, filled)), row["fetched"]


def _work_rank(row: dict) -> tuple:
    return STATES.index("todo" if row["state"] == "taken" else row["state"]),


RANKS = {items_table: _item_rank, work_table: _work_rank, rejected_table: lambda row: (row["seen"],),
         hosts_table: lambda row: (row["held_until"],)}


def _is_same(one: ItemStore, other: ItemStore) -> bool:
    return one.name == other.name or (os.path.exists(one.name) and os.path.exists(other.name)
                                      and os.path.samefile(one.name, other.name))
