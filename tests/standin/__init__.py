"""Stand-ins for a Stack Exchange site, its API and a bookshop, on this machine: no test needs the network, and no real site
pays.

`with StandInSite(questions) as site:` serves pages at `site.url`, as `StandInShop(books)` does, `with StandInApi(questions) as
api:` answers at `api.url`; all give the faults asked of them. To try a collector by hand:
`python tests/standin --questions 3000`.
"""

from .api import StandInApi
from .books import Book, make_books
from .questions import Question, make_questions
from .shop import StandInShop
from .site import StandInSite

__all__ = ["Book", "Question", "StandInApi", "StandInShop", "StandInSite", "make_books", "make_questions"]
