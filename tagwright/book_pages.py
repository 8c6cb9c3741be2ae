"""Reading a bookshop's pages, laid out as smashwords.com's: HTML and its address in, an Item or a list of books out. Nothing
here touches the network.

What is looked for is found by what it is marked as (itemprop, meta, the shape of a link), then by the names that the layouts
of 2013 and of later years give it, never by where on the page it stands. Does not read prices, reviews, tags or samples.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import urlsplit

from lxml import etree
from lxml.html import HtmlElement

from tagwright.bookshop import Place, book_id, book_url, category_place, is_author
from tagwright.markup import (
    ChallengePage,
    RemovedPage,
    UnreadablePage,
    absolute,
    asks_for_a_human,
    classes,
    inner_html,
    line,
    parse,
    refusal,
    under,
    walk,
)
from tagwright.stackexchange import split_url
from tagwright.store import Item

# Names of elements, ids and classes of what surrounds the shop's own content.
FURNITURE = {"nav", "footer", "form", "aside", "script", "style", "noscript", "leftSideBox", "sidebar", "review", "reviews"}
CONTENT = "descendant::*[@id='longDescription' or @itemprop='author' or @itemprop='description' or @class='library-book']"
ENTRIES = {"library-book"}  # a book in a list, with other new ones of its author
GENRE_PROPERTIES, GENRE_CLASSES = {"category", "genre"}, {"category", "genre", "genres", "breadcrumb"}

SIGN = re.compile(r"\s*[»›>/→]\s*")  # between a genre and the narrower one
PATH_SIGN = " » "
NO_BOOKS = re.compile(r"(?<![\w.,])(?:no|0) (?:[\w-]+ ){0,3}(?:e?books|works|titles|results)\b|(?:n.t|not) (?:find|match) any",
                      re.I)
WITHHELD = re.compile(
    r"adult (?:content|material)(?!:)|adults only|(?:at least|over|under) (?:the age of )?(?:18|eighteen)|18 (?:years|or older)"
    r"|no longer (?:available|for sale|sold)|(?:has been|was) (?:unpublished|removed|deleted|withdrawn)", re.I)
PUBLISHED = re.compile(r"Published:? (?:on )?([A-Z][a-z]{2})[a-z]*\.? ([0-9]{1,2}), ([0-9]{4})")
ISO_DATE = re.compile(r"\s*([0-9]{4}-[0-9]{2}-[0-9]{2})")


@dataclass
class BookListing:
    """The addresses of the books on one page of a category, in its order; the category's path (`Fiction » Romance`), empty
    where the page does not show it; the address of the next page, None on the last one."""

    urls: list[str]
    category: str
    next: str | None


def read_category(html: str, url: str, category: int) -> BookListing:
    """The books that a page of the category with that number leads to, each once; none on a page that is empty. `url` is where
    the browser ended.

    Raises ChallengePage, RemovedPage (also where it ended elsewhere), or UnreadablePage: no book, and nothing that says so.
    """
    page, place = parse(html), category_place(absolute(url))
    if place is None or place.category != category:
        if asks_for_a_human(page, CONTENT):
            raise ChallengePage("a page that asks for a human")
        raise RemovedPage(f"no category {category}: its address leads to {url[:80]}")
    nodes = list(walk(page, FURNITURE))
    entries = under(nodes, ENTRIES)
    ids = list(dict.fromkeys(filter(None, map(book_id, _own_links(entries or nodes, url)))))
    own = _pages_of(category, nodes, url)
    if not ids and not any(place.filters for place in own) and not NO_BOOKS.search(_text(nodes)):
        raise refusal(page, WITHHELD.search(_text(nodes)), CONTENT, "no book in the list (truncated?)")
    further = min((other for other in own if other.offset > place.offset), key=lambda other: other.offset, default=None)
    path = _path_to(category, page, url) if entries else ""  # else they may be books that the page recommends
    return BookListing([book_url(_base(url), id) for id in ids], path, own[further] if ids and further else None)


def read_book(html: str, url: str) -> Item:
    """The book on a page; `url` is where the browser ended, and its host is the site.

    The body is the full description as HTML; the tags are the paths of the book's genres, broadest first (`Fiction » Romance`);
    `created` is the day of publication. Raises ChallengePage, RemovedPage (also for a book that is shown to adults only), or
    UnreadablePage with what is missing.
    """
    page, id = parse(html), book_id(absolute(url))
    nodes = [node for node in walk(page, FURNITURE) if not _is_review(node)]
    title_node = _title_node(nodes)
    author = _author(nodes, title_node, url)
    described, genres = _description_blocks(nodes), _genres(nodes, url)
    title = line(title_node.text_content()) if title_node is not None else _meta(page, "og:title")
    if not (id and title and (author or described or genres)):
        missing = [name for name, value in [("number", id), ("title", title), ("author or description", False)] if not value]
        raise refusal(page, WITHHELD.search(_text(nodes)), CONTENT, f"a book with no {missing[0]} (truncated?)")
    created = _published(nodes)
    body = _blurb(described) or escape(_meta(page, "description") or _meta(page, "og:description"), quote=False)
    try:
        return Item(split_url(url)[1], id, book_url(_base(url), id), title, body, genres, None, created, "browser", author)
    except ValueError as error:
        raise UnreadablePage(str(error)) from None


def _base(url: str) -> str:
    parts = urlsplit(absolute(url))
    return f"{parts.scheme}://{parts.netloc}"


def _text(nodes: Iterable[HtmlElement]) -> str:
    """The text in elements of a page, each counted without those that it holds."""
    return line(" ".join(f"{node.text or ''} {node.tail or ''}" for node in nodes))


def _properties(node: HtmlElement) -> set[str]:
    return set(node.get("itemprop", "").split())


def _is_review(node: HtmlElement) -> bool:
    return bool(node.xpath("ancestor-or-self::*[@itemprop='review' or contains(@itemtype, '/Review')]"))


def _meta(page: HtmlElement, name: str) -> str:
    given = (node.get("content", "") for node in page.iter("meta")
             if name in (node.get("property"), node.get("name", "").lower()))
    return next(filter(None, map(line, given)), "")


def _own_links(nodes: Iterable[HtmlElement], page: str) -> Iterator[str]:
    """Where the links and selections among the nodes lead to on the page's own site."""
    host = split_url(absolute(page))[1]
    given = (node.get("href") or node.get("value") for node in nodes if node.tag in ("a", "option"))
    links = (absolute(link, page) for link in given if link)
    return (link for link in links if split_url(link)[1] == host)


def _pages_of(category: int, nodes: Iterable[HtmlElement], page: str) -> dict[Place, str]:
    """The pages of a category's list that the nodes lead to, with their addresses."""
    places = ((category_place(link), link) for link in _own_links(nodes, page))
    return {place: link for place, link in places if place and place.category == category}


def _paths(block: HtmlElement, page: str) -> list[list[tuple[int, str]]]:
    """The chains of links to categories in a block, each from the broadest to the narrowest, as numbers and names: a sign such
    as » stands between two links of a chain, or they are in neighbouring items of an ordered list."""
    paths: list[list[tuple[int, str]]] = []
    last, between = None, ""
    walker = etree.iterwalk(block, events=("start", "end"))
    for event, node in walker:
        if event == "end":
            between += node.tail or ""
            continue
        place = category_place(absolute(node.get("href", ""), page)) if node.tag == "a" else None
        if place is None:
            between += "<br>" if node.tag == "br" else node.text or ""
            continue
        if last is None or not (SIGN.fullmatch(between) or not between.strip() and _is_next_item(last, node)):
            paths.append([])
        if name := line(node.text_content()):
            paths[-1].append((place.category, name))
        last, between = node, ""
        walker.skip_subtree()
    return list(filter(None, paths))


def _is_next_item(last: HtmlElement, node: HtmlElement) -> bool:
    item = node.getparent()
    return item is not None and item.tag == "li" and item.getparent().tag == "ol" and item.getprevious() is last.getparent()


def _path_to(category: int, page: HtmlElement, url: str) -> str:
    """The path of a category, from its breadcrumbs or from what a book in its list is said to be; else an empty text."""
    for path in _paths(page, url):
        numbers = [number for number, _ in path]
        if category in numbers and len(path) > 1:
            return PATH_SIGN.join(name for _, name in path[:numbers.index(category) + 1])
    return ""


def _genres(nodes: list[HtmlElement], page: str) -> list[str]:
    marked = ([node for node in nodes if _properties(node) & GENRE_PROPERTIES]
              or [node for node in nodes if classes(node) & GENRE_CLASSES])
    outer = [node for node in marked if not any(around in marked for around in node.iterancestors())]
    genres = []
    for block in outer:
        paths = [PATH_SIGN.join(name for _, name in path) for path in _paths(block, page)]
        if not paths and _properties(block):  # text that is marked as a genre, without links
            paths = [PATH_SIGN.join(SIGN.split(line(block.get("content") or block.text_content())))]
        genres += paths
    return list(dict.fromkeys(filter(None, genres)))


def _title_node(nodes: list[HtmlElement]) -> HtmlElement | None:
    """The heading that is marked as the name, or else the first one."""
    titles = [node for node in nodes if node.tag == "h1" and line(node.text_content())]
    return min(titles, key=lambda node: "name" not in _properties(node), default=None)


def _author(nodes: list[HtmlElement], title: HtmlElement | None, page: str) -> str | None:
    """Who is marked as author, or else those that the first link to a profile after the title, and those beside it, name."""
    named = [node for node in nodes if "author" in _properties(node)]
    if not named and title is not None:
        after = nodes[nodes.index(title):]
        profiles = [node for node in after if node.tag == "a" and is_author(absolute(node.get("href", ""), page))]
        named = [node for node in profiles if node.getparent() is profiles[0].getparent()]
    names = dict.fromkeys(line(node.get("content") or node.text_content()) for node in named)
    return ", ".join(filter(None, names)) or None


def _description_blocks(nodes: list[HtmlElement]) -> list[HtmlElement]:
    return [node for node in nodes
            if node.tag != "meta" and (node.get("id") == "longDescription" or "description" in _properties(node))]


def _blurb(blocks: list[HtmlElement]) -> str:
    """The longest description, as many pages have a short one too, without the links that unfold it."""
    if not blocks:
        return ""
    block = max(blocks, key=lambda block: len(line(block.text_content())))
    etree.strip_elements(block, "script", "style", "button", with_tail=False)
    for link in block.xpath("descendant::a[starts-with(@href, '#')]"):
        link.drop_tree()
    return inner_html(block)


def _published(nodes: list[HtmlElement]) -> int | None:
    """The day of publication, as its first second; None for one before 1970, which is no e-book's."""
    marked = [node.get("content") or node.get("datetime") or node.text_content() for node in nodes
              if "datePublished" in _properties(node)]
    iso = next(filter(None, map(ISO_DATE.match, marked)), None)
    said = PUBLISHED.search(_text(nodes))
    try:
        if iso:
            day = datetime.fromisoformat(iso[1])
        elif said:
            day = datetime.strptime(" ".join(said.groups()), "%b %d %Y")
        else:
            return None
    except ValueError:  # such as month 13
        return None
    seconds = int(day.replace(tzinfo=UTC).timestamp())
    return seconds if seconds >= 0 else None
