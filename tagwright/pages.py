"""Reading Stack Exchange pages: HTML and its address in, an Item or a Listing out. Nothing here touches the network.

Reads question pages and lists of questions of any site of the network, in its layouts of 2013 to 2025, archived copies too.
Does not read answers, comments or users, and does not undo what a browser has drawn (MathJax's formulas stay drawn).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from urllib.parse import unquote, urlsplit

from lxml import etree
from lxml.html import HtmlElement

from tagwright.markup import (
    UnreadablePage,
    absolute,
    asks_for_a_human,
    classes,
    inner_html,
    line,
    parse,
    refusal,
    text_of,
    under,
    walk,
)
from tagwright.stackexchange import NAME, question_id, question_url, site_of
from tagwright.store import Item
from tagwright.text import tidy

CONTENT = "descendant::*[@id='question' or @id='questions' or @data-questionid]"
# Class names, and a few ids. Users cannot give their text a class, so in a body these are always the site's own.
BODIES = ("js-post-body", "s-prose", "post-text")  # the surest first
NOTICES = {"question-status", "special-status", "s-notice", "js-post-notice", "post-notice", "bounty-notification"}
AFTER_BODY = {"post-taglist", "js-post-tag-list-wrapper", "post-menu", "js-post-menu", "post-signature", "comments", "answer"}
ASIDE = {"sidebar", "left-sidebar", "s-sidebarwidget", "sidebar-linked", "sidebar-related", "hot-network-questions", "footer",
         "js-zone-container", "everyonelovesstackoverflow"}
NOT_QUESTION = NOTICES | ASIDE | {"answers", "answer", "js-answer", "comments", "comment", "comments-list"}

STATUS = re.compile(  # in English, Spanish, Portuguese, Russian and Japanese
    r"(?: ?\[(?:closed|duplicate|on hold|migrated|locked|protected|cerrada|duplicada|fechada|закрыт|дубликат|重複)\]){1,3}$",
    re.I)
OLD_NOTICE = re.compile(r"\s*(?:possible duplicates?:|this question already has (?:an )?answers? here)", re.I)
REMOVED = re.compile(r"(?:removed from [\w .&]{1,60} )?for reasons of moderation|voluntarily removed by its author", re.I)
NO_QUESTIONS = re.compile(r"(?<![\w.,])(?:no|0) (?:[\w-]+ ){0,3}(?:questions|results)\b|(?:n.t|not) (?:find|match) any", re.I)

TIME = re.compile(r"\s*(20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2})")


@dataclass
class Listing:
    """The addresses of the questions on one page of a list, in its order, and whether the list goes on."""

    urls: list[str]
    has_next: bool


def read_question(html: str, url: str) -> Item:
    """The question on a page; `url` is where the browser ended, and its host decides the site.

    The body is the inner HTML as received, less the notices (closed, duplicate) that the site put into it.
    Raises ChallengePage, RemovedPage, or UnreadablePage with what is missing.
    """
    base, host = _page_address(url)
    page = parse(html)
    question = next(iter(page.xpath("descendant::*[@id='question']") + page.xpath("descendant::*[@data-questionid]")), None)
    if question is None:
        raise refusal(page, REMOVED.search(text_of(page)), CONTENT, "no question block")
    block = _body_block(question)
    if block is None:
        raise UnreadablePage("a question with no body (truncated?)")
    _let_out_what_follows(block)
    own = list(walk(question, NOT_QUESTION, block))
    canonical = page.xpath("string(descendant::link[@rel='canonical']/@href)")
    id = _located(url)[2] or _located(f"{base}/q/{question.get('data-questionid')}")[2] or _located(canonical)[2]
    title = _title(page, block)
    tags = _tags(own) if _goes_on_after_tags(html) else []
    score = _score(own, question)
    created = _created(page, own, block)
    body = _body(block)
    if missing := [name for name, value in [("id", id), ("title", title), ("body", body), ("tags", tags)] if not value]:
        raise UnreadablePage(f"a question with no {', no '.join(missing)} (truncated?)")
    try:
        return Item(site_of(host), id, question_url(base, id), title, body, tags, score, created, source="browser")
    except ValueError as error:
        raise UnreadablePage(str(error)) from None


def read_listing(html: str, url: str) -> Listing:
    """The questions that a page of a list leads to, on that page's own site, each once; none on an empty last page.

    Raises ChallengePage, RemovedPage, or UnreadablePage: no question and nothing that says so, or a list that is cut off.
    """
    base, host = _page_address(url)
    page = parse(html)
    nodes = list(walk(page, ASIDE))
    listed = under(nodes, {"question-summary", "s-post-summary"}) or under(nodes, {"questions"})
    ids = _ids(filter(_is_title, listed or nodes), url, host) or _ids(listed, url, host)
    has_next = bool(page.xpath("descendant::a[contains(concat(' ', normalize-space(@rel), ' '), ' next ')]"))
    if not ids and (has_next or not _says_it_is_empty(page)):
        raise refusal(page, REMOVED.search(text_of(page)), CONTENT, "no question in the list (truncated?)")
    if not has_next and re.search("<html", html, re.I) and not re.search("</html", html, re.I):
        raise UnreadablePage("a list cut off before its pager (truncated?)")  # it would pass for the last page
    return Listing([question_url(base, id) for id in ids], has_next)


def is_challenge(html: str) -> bool:
    """Whether a page asks for a human in place of what was asked for. A question about captchas does not."""
    return asks_for_a_human(parse(html), CONTENT)


def _says_it_is_empty(page: HtmlElement) -> bool:
    lists = page.xpath("descendant::*[@id='questions']")[:1]
    empty = [node for node in lists if not tidy(node.text_content()) and node.xpath("following::*[1]")]  # else it was cut there
    return bool(empty or NO_QUESTIONS.search(text_of(page)))


def _page_address(url: str) -> tuple[str, str]:
    scheme, host, _ = _located(url)
    if not NAME.fullmatch(host):
        raise UnreadablePage(f"not the address of a page: {url[:80]!r}")
    return f"{scheme}://{host}", host


def _located(href: str, page: str = "") -> tuple[str, str, str | None]:
    """Scheme and host of an address, and the id where it is a question's; empty strings for no web address."""
    url = absolute(href, page)
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower().removeprefix("www."), question_id(url)


def _is_title(node: HtmlElement) -> bool:
    around = node.getparent()
    return around is not None and around.tag != "h1" and (
        "question-hyperlink" in classes(node) or around.tag in ("h2", "h3", "h4"))


def _ids(nodes: Iterable[HtmlElement], page: str, host: str) -> list[str]:
    """The ids of the questions of a host that the links among the nodes lead to, each once."""
    located = (_located(node.get("href"), page) for node in nodes if node.tag == "a" and node.get("href"))
    return list(dict.fromkeys(id for _, at, id in located if id and at == host))


def _body_block(question: HtmlElement) -> HtmlElement | None:
    nodes = list(walk(question, NOT_QUESTION))
    by_meaning = [node for node in nodes if node.get("itemprop") in ("text", "description") and node.tag != "meta"]
    return next(iter(by_meaning + [node for name in BODIES for node in nodes if name in classes(node)]), None)


def _let_out_what_follows(block: HtmlElement) -> None:
    """An unclosed tag in a body takes in the rest of the page, tags and answers: move that to after the block."""
    node = next((node for node in walk(block) if classes(node) & AFTER_BODY), block)
    strays = [] if node is block else [node]
    while node is not block:
        strays += node.itersiblings()
        node = node.getparent()
    for stray in reversed(strays):
        block.addnext(stray)


def _body(block: HtmlElement) -> str:
    for node in walk(block):
        if classes(node) & NOTICES:
            node.tag = "notice"
    etree.strip_elements(block, "notice", with_tail=False)
    # The notices of 2011 to 2013 have no class of their own, but nothing stands before them.
    while not (block.text or "").strip() and (first := next(block.iterchildren("*"), None)) is not None:
        if first.tag not in ("blockquote", "div", "aside", "table") or not OLD_NOTICE.match(first.text_content()):
            break
        first.drop_tree()
    return inner_html(block)


def _title(page: HtmlElement, block: HtmlElement) -> str | None:
    """The heading before the body. Never the page's <title>, which most often begins with a tag."""
    before = [node for node in takewhile(lambda node: node is not block, page.iter("*")) if node.tag == "h1"]
    for heading in sorted(reversed(before), key=lambda node: node.get("itemprop") != "name"):  # stable: else the nearest
        links = [link for link in heading.iter("a") if "question-hyperlink" in classes(link)] or [heading]
        if title := STATUS.sub("", line(links[0].text_content())):
            return title
    return None


def _tags(own: list[HtmlElement]) -> list[str]:
    links = [node for node in own if node.tag == "a" and "post-tag" in classes(node)]
    named = (line(link.text_content()) or line(unquote(link.get("href", "").rpartition("/")[2])) for link in links)
    return list(dict.fromkeys(filter(None, named)))


def _goes_on_after_tags(html: str) -> bool:
    """Whether a tag list was received to its end: the parser closes what a cut page leaves open, and hides the cut."""
    return bool(re.search(r"</(?:div|ul|ol|p|td|section|body|html)\b", html[html.rfind("post-tag"):], re.I))


def _score(own: list[HtmlElement], question: HtmlElement) -> int | None:
    counts = (node.get("data-value") or node.text_content() for node in own
              if node.get("itemprop") == "upvoteCount" or classes(node) & {"js-vote-count", "vote-count-post"})
    number = re.fullmatch(r"\s*([-−]?[0-9]{1,9})\s*", next(counts, question.get("data-score", "")))
    return int(number[1].replace("−", "-")) if number else None


def _created(page: HtmlElement, own: list[HtmlElement], block: HtmlElement) -> int | None:
    marked = [node.get("datetime", "") for node in walk(page, NOT_QUESTION, block) if node.get("itemprop") == "dateCreated"]
    signed = [node.get("title", "") for node in own if "relativetime" in classes(node) and _is_asking(node)]
    aside = page.xpath("string(descendant::*[@id='qinfo']/descendant::*/@title)")  # a community wiki is signed by nobody
    for given in filter(None, map(TIME.match, [*marked, *signed, aside])):
        try:
            return int(datetime.fromisoformat(given[1]).replace(tzinfo=UTC).timestamp())
        except ValueError:  # such as month 13
            continue
    return None


def _is_asking(time: HtmlElement) -> bool:
    """Whether a time is what the question was signed with: that of an edit stands in a link to the edits."""
    action = time.getparent()
    is_signed = classes(action) & {"user-action-time", "post-signature", "s-user-card--time"}
    return bool(is_signed) and not (action.text or "").strip().lower().startswith("edited")
