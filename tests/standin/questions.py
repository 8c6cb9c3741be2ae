"""What the stand-ins hold: the written sample first, then as much invented filler as a test asks for."""

import html
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample" / "scifi.jsonl"
FIRST_SECOND = 1_300_000_000  # in March 2011
SHARED_SECONDS = (1, 2)  # the second and third of every fifty come in the same second as the first

# A noun of the filler, and the tag that goes with it.
TOPICS = {
    "airship": "airships", "android": "androids", "archive": "libraries", "beacon": "signals", "clockmaker": "clocks",
    "colony": "colonies", "comet": "comets", "courier": "couriers", "dragon": "dragons", "drone": "c++",
    "engine": "c#", "ferryman": "rivers", "garden": "gardens", "gate": "portals", "glacier": "ice-planets",
    "harbour": "harbours", "lantern": "lanterns", "lighthouse": "lighthouses", "mapmaker": "maps", "moon": "moons",
    "observatory": "telescopes", "oracle": "prophecy", "pilot": "space-travel", "robot": "robots", "spaceport": ".net",
    "submarine": "oceans", "translator": "languages", "windmill": "weather", "wizard": "magic", "wormhole": "wormholes",
}  # fmt: skip
OTHER_TAGS = ["story-identification", "novel", "short-stories", "tv", "movie", "comics", "plot-explanation", "node.js"]
WORKS = ["Salt Meridian", "The Ninth Orchard", "Café Andromeda", "Low Tide, High Orbit", "Winter Signal", "The Glass Relay"]
ADJECTIVES = ["silent", "borrowed", "copper", "distant", "patient", "second", "crooked", "unfinished", "northern", "hollow"]
VERBS = ["follow", "repair", "outlive", "mistrust", "measure", "rename", "carry", "answer", "forget", "surround"]
TITLES = [
    "Why did the {adjective} {noun} never {verb} the {other}?",
    'What does "{adjective} {noun}" mean to the {other} in {work}?',
    "Is the {noun} & {other} chapter of {work} older than the {adjective} edition?",
    "How long did the {adjective} {noun}'s crew {verb} the {other}?",
    "Could a mass < 1 kg let the {noun} {verb} that {adjective} {other}?",
]
SENTENCES = [
    "In <em>{work}</em> the {adjective} {noun} goes on to {verb} the {other} &amp; nobody asks about it.",
    "I remember one {adjective} {other}, and the {noun} that would {verb} it by night.",
    "The map at the front shows the {noun} west of the {other}, which can&#39;t be right.",
    "My copy has lost its last pages, so I never learned whether they {verb} the {adjective} {noun}.",
]
OWNERS = ["Marginalia", "D. O'Harrow", "tin & twine", "Zoë", "quiet_reader", "user48213", "Night Ferry", "Ottokar"]


@dataclass(frozen=True)
class Question:
    """A question as its author wrote it: `title` is plain text, `body` and each of `answers` are HTML."""

    id: int
    title: str
    body: str
    tags: list[str]
    score: int
    created: int
    closed: Literal["closed", "duplicate"] | None
    owner: str
    answers: list[str]

    @property
    def slug(self) -> str:
        """What follows the id in the question's address."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower())[:80].strip("-")

    @property
    def active(self) -> int:
        """When it was last changed or answered, in Unix seconds."""
        return self.created + 86_400 * len(self.answers)

    @property
    def views(self) -> int:
        return 20 + self.id * 37 % 9000


def escape(text: str) -> str:
    """Text as Stack Exchange puts it into HTML and into its API's titles: `'` and Latin-1 letters become numbers."""
    text = html.escape(text).replace("&#x27;", "&#39;")
    return re.sub("[\xa0-\xff]", lambda match: f"&#{ord(match[0])};", text)


def make_questions(count: int = 520, seed: int = 7) -> list[Question]:
    """`count` questions, oldest first, the same for the same `seed`; fewer are a prefix of more."""
    rng = random.Random(seed)
    pool = [f"<p>{_fill(rng, rng.choice(SENTENCES))[0]}</p>" for _ in range(400)]
    written = _written()
    questions, titles = [], set()
    id, created = 1000, FIRST_SECOND
    for index in range(count):
        title, body, tags = written[index] if index < len(written) else _invented(rng, index, pool)
        if title in titles:
            title = f"{title[:-1]}, part {index}?"
        titles.add(title)
        id += rng.randint(1, 9)
        if index % 50 not in SHARED_SECONDS:
            created += rng.randint(1, 12_000)
        closed = {7: "closed", 13: "duplicate"}.get(index % 20)
        answers = [_answer(rng, pool) for _ in range(index % 4)]
        questions.append(Question(id, title, body, tags, rng.randint(-3, 60), created, closed, rng.choice(OWNERS), answers))
    return questions


def _written() -> list[tuple[str, str, list[str]]]:
    """The sample's titles, bodies and tags, less the rows it spoils on purpose."""
    found = {}
    for line in SAMPLE.read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        title = html.unescape(row["title"]).strip()
        if title and row["body"] and row["tags"] and isinstance(row["tags"], list):
            found.setdefault(title, (title, row["body"], row["tags"]))
    return list(found.values())


def _fill(rng: random.Random, form: str) -> tuple[str, str, str]:
    """A form with its gaps filled, and the two nouns that went in."""
    noun, other = rng.sample(list(TOPICS), 2)
    words = {"work": rng.choice(WORKS), "adjective": rng.choice(ADJECTIVES), "verb": rng.choice(VERBS)}
    return form.format(noun=noun, other=other, **words), noun, other


def _invented(rng: random.Random, index: int, pool: list[str]) -> tuple[str, str, list[str]]:
    title, noun, other = _fill(rng, rng.choice(TITLES))
    tags = [TOPICS[noun], TOPICS[other], *rng.sample(OTHER_TAGS, index % 4)]
    body = rng.choices(pool, k=3)
    if index % 15 == 0:
        body.append("<pre><code>if width &lt; 3 &amp;&amp; !sealed:\n    open(hatch)\n</code></pre>")
    if index % 40 == 0:  # a question may name a tag that it does not bear
        body.append(f"<p>I did look through {_tag_link('reference-request')} first.</p>")
    return title, "\n\n".join(body), tags


def _answer(rng: random.Random, pool: list[str]) -> str:
    """An answer that looks like a question with tags: a reader that strays into it gives itself away."""
    links = "".join(f"<li class='js-post-tag-list-item'>{_tag_link(tag)}</li>" for tag in ("answer-only", "not-a-label"))
    return f"{rng.choice(pool)}\n\n<p>An answer in two parts.</p>\n\n<ul class='js-post-tag-list-wrapper'>{links}</ul>"


def _tag_link(tag: str) -> str:
    return f'<a href="/questions/tagged/{tag}" class="post-tag" rel="tag">{tag}</a>'
