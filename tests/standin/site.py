"""A stand-in for a Stack Exchange site: listings, questions in old and new markup, and what their pages load."""

import base64
import random
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from . import pages
from .questions import Question
from .server import COMMON_FAULTS, Reply, StandIn

ROBOTS = "User-agent: *\nDisallow: /search\n"
QUESTION = re.compile(r"/(?:questions|q)/(\d+)(?:/.*)?")
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
STYLE = "@font-face{font-family:Face;src:url(/static/face.woff2)}body{font-family:Face,serif}"


def _challenge(make, status: int = 403) -> Reply:
    """The page a bot is shown in place of any other; only the refusal says in its head what it is."""
    headers = {"Server": "cloudflare"} | ({"cf-mitigated": "challenge"} if status == 403 else {})
    return Reply(pages.CHALLENGE.encode(), status, headers=headers)


@dataclass(eq=False, repr=False)
class StandInSite(StandIn):
    """Serves `questions`, newest first, in today's markup, the old one, or each by the parity of its id ("mixed").

    `removed` holds ids that answer 404, `migrated` ids with the address they moved to; both may change at any time,
    and both stay in the listings, as what is removed between a listing and a visit does.
    """

    faults = COMMON_FAULTS | {
        "challenge": _challenge,
        "redirect": lambda make, url: _moved(url),
        "404": lambda make: _missing("There is no such page."),
        "garbage": lambda make: Reply(random.Random(1).randbytes(5000)),
    }

    questions: Sequence[Question]
    markup: Literal["today", "old", "mixed"] = "today"
    _: KW_ONLY
    page_size: int = 50
    robots: str = ROBOTS
    removed: set[int] = field(default_factory=set)
    migrated: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        self._newest = sorted(self.questions, key=lambda question: (question.created, question.id), reverse=True)
        self._place = {question.id: place for place, question in enumerate(self._newest)}

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        if path == "/robots.txt":
            return Reply(self.robots.encode(), type="text/plain; charset=utf-8")
        if path == "/questions":
            return self._listing(params.get("page", ""))
        if match := QUESTION.fullmatch(path):
            return self._question(int(match[1]), path)
        return RESOURCES.get(path) or _missing("There is no such page.")

    def _listing(self, asked: str) -> Reply:
        page = max(1, int(asked)) if asked.isdecimal() else 1
        shown = self._newest[(page - 1) * self.page_size : page * self.page_size]
        last = max(1, -(-len(self._newest) // self.page_size))
        return Reply(pages.listing_page(shown, page, last, self._is_old(page)).encode())

    def _question(self, id: int, path: str) -> Reply:
        if id in self.migrated:
            return _moved(self.migrated[id])
        if id in self.removed or id not in self._place:
            return _missing("This question is no longer here: its author or a moderator took it down.")
        place = self._place[id]
        question = self._newest[place]
        if path != pages.address(question):
            return _moved(pages.address(question))
        others = self._newest[max(0, place - 10) : place] or self._newest[1:11]
        return Reply(pages.question_page(question, others, self._is_old(id)).encode())

    def _is_old(self, number: int) -> bool:
        """The markup of the question with that id, or of the listing's page with that number."""
        return self.markup == "old" or (self.markup == "mixed" and number % 2 == 0)


def _missing(text: str) -> Reply:
    return Reply(pages.missing_page(text).encode(), 404)


def _moved(url: str) -> Reply:
    return Reply(b"", 302, headers={"Location": url})


def _bulk(start: bytes, size: int, type: str) -> Reply:
    """A resource as heavy as a real one: what matters in it, and bytes that compress no better than a real one's."""
    return Reply(start + random.Random(size).randbytes(size), type=type)


PICTURES = ["icon", "logo", *(f"avatar-{number}" for number in range(8))]
RESOURCES = {
    "/static/primary.css": Reply(f"{STYLE}/*{'stand-in style ' * 3000}*/".encode(), type="text/css"),
    "/static/full.js": Reply(f"/*{'stand-in script ' * 6000}*/".encode(), type="application/javascript"),
    "/static/face.woff2": _bulk(b"wOF2", 60_000, "font/woff2"),
} | {f"/static/{name}.gif": _bulk(PIXEL, 15_000, "image/gif") for name in PICTURES}  # nobody reads beyond a picture's end
