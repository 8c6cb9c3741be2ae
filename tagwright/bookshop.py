"""Names and addresses of a bookshop laid out as smashwords.com is: site ↔ host, book and category ↔ URL. What a page holds is
read elsewhere."""

import re
from typing import NamedTuple

from tagwright.errors import TagwrightError
from tagwright.stackexchange import NAME, split_url

SMASHWORDS = "https://www.smashwords.com"
BOOK_PATH = re.compile(r"^/books/view/0*([1-9]\d{0,17})(?:/|$)")
# …/category/1235/newest/0/any/any/40: the order, then filters, then how many books come before the page's first
CATEGORY_PATH = re.compile(r"^/books/category/0*([1-9]\d{0,8})((?:/[^/]+){0,4})(?:/(\d{1,9}))?/?$")
AUTHOR_PATH = re.compile(r"^/profile/view/[^/]+/?$")


class Place(NamedTuple):
    """A page of a category's list: the category's number, the order and filters (empty: the plain address), the offset."""

    category: int
    filters: str
    offset: int


def split_shop(given: str) -> tuple[str, str]:
    """A shop's name in the store and its base address, from a host or a URL.

    >>> split_shop("www.smashwords.com"), split_shop("http://127.0.0.1:8000")  # a stand-in, or a mirror
    (('smashwords.com', 'https://www.smashwords.com'), ('127.0.0.1:8000', 'http://127.0.0.1:8000'))

    Raises TagwrightError for what is neither.
    """
    url = given if "://" in given else f"https://{given}"
    scheme, host, _ = split_url(url)
    if scheme not in ("http", "https") or not NAME.fullmatch(host):
        raise TagwrightError(f"--site {given}: not a host (www.smashwords.com) or an address")
    return host, "/".join(url.split("/", 3)[:3])


def book_id(url: str) -> str | None:
    """The number in a book's URL (`…/books/view/123`), or None where it is no book's."""
    match = BOOK_PATH.match(split_url(url)[2])
    return match[1] if match else None


def book_url(base: str, id: str) -> str:
    return f"{base}/books/view/{id}"


def category_place(url: str) -> Place | None:
    """The page of a category's list that a URL leads to, or None where it is no category's."""
    match = CATEGORY_PATH.match(split_url(url)[2])
    return Place(int(match[1]), match[2], int(match[3] or 0)) if match else None


def category_url(base: str, category: int, offset: int = 0) -> str:
    """A page of a category's list, newest books first, of any price and length."""
    return f"{base}/books/category/{category}/newest/0/any/any" + (f"/{offset}" if offset else "")


def is_author(url: str) -> bool:
    """Whether a URL is that of an author's (or a publisher's) profile."""
    return bool(AUTHOR_PATH.match(split_url(url)[2]))
