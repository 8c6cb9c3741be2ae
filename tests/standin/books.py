"""What the stand-in shop sells: invented books, each in one or two of its categories."""

import random
import re
from dataclasses import dataclass

from .questions import ADJECTIVES, OWNERS, TOPICS, VERBS

FIRST_DAY = 1_330_000_000 // 86_400  # in February 2012
# Number → the number of the broader category, and the name.
CATEGORIES = {
    1000: (None, "Fiction"), 1001: (1000, "Romance"), 1002: (1001, "Historical"), 1003: (1000, "Science fiction"),
    1004: (1000, "Children’s books"), 1005: (None, "Nonfiction"), 1006: (1005, "Cooking, Food & Wine"),
    1007: (1005, "Travel"), 1008: (1005, "Stamp collecting"),
}  # fmt: skip
WITHOUT_BOOKS = {1008}
LEAVES = [1002, 1003, 1004, 1006, 1007, 1001]
TITLES = ["The {adjective} {noun}", "A {noun} and Her {other}", "How to {verb} a {noun} & Its {other}", "{noun} < {other}"]
BLURBS = [
    "Nobody has seen the {adjective} {noun} since the harvest, and the {other} keeps asking.",
    "To {verb} a {noun} takes patience; to {verb} two takes a {adjective} {other} &amp; a map.",
    "This is the story of the <em>{adjective}</em> {other} that learned to {verb} the {noun}.",
]


@dataclass(frozen=True)
class Book:
    """A book as its author entered it: `title` is plain text, `blurb` HTML, `categories` numbers of the narrowest ones."""

    id: int
    title: str
    author: str
    blurb: str
    categories: list[int]
    published: int  # Unix seconds

    @property
    def genres(self) -> list[str]:
        return [" » ".join(name for _, name in path(number)) for number in self.categories]

    @property
    def profile(self) -> str:
        return re.sub(r"\W", "", self.author)


def path(category: int) -> list[tuple[int, str]]:
    """A category's path, broadest first, as numbers and names."""
    broader, name = CATEGORIES[category]
    return [*(path(broader) if broader else []), (category, name)]


def make_books(count: int = 60, seed: int = 5) -> list[Book]:
    """`count` books, oldest first, the same for the same `seed`."""
    rng = random.Random(seed)
    books, id = [], 300_000
    for index in range(count):
        id += rng.randint(1, 40)
        noun, other = rng.sample(list(TOPICS), 2)
        words = {"noun": noun, "other": other, "adjective": rng.choice(ADJECTIVES), "verb": rng.choice(VERBS)}
        title = rng.choice(TITLES).format(**words).title()
        blurb = "<br><br>".join(sentence.format(**words) for sentence in rng.sample(BLURBS, 2))
        categories = [LEAVES[index % len(LEAVES)]] + ([1007] if index % 7 == 0 and index % len(LEAVES) != 4 else [])
        published = (FIRST_DAY + index) * 86_400
        books.append(Book(id, f"{title}, Vol. {index}", rng.choice(OWNERS), blurb, categories, published))
    return books
