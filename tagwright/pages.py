"""Reading Stack Exchange pages: HTML and its address in, an Item or a Listing out. Nothing here touches the network.

Reads question pages and lists of questions of any site of the network, in its layouts of 2013 to 2025, archived copies too.
Does not read answers, comments or users, and does not undo what a browser has drawn (MathJax's formulas stay drawn).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from urllib.parse import unquote, urljoin, urlsplit

from lxml import etree
from lxml.html import HtmlElement, HTMLParser

from tagwright.stackexchange import NAME, question_id, question_url, site_of
from tagwright.store import Item
from tagwright.text import tidy

# Class names, and a few ids. Users cannot give their text a class, so in a body these are always the site's own.
BODIES = ("js-post-body", "s-prose", "post-text")  # the surest first
NOTICES = {"question-status", "special-status", "s-notice", "js-post-notice", "post-notice", "bounty-notification"}
AFTER_BODY = {"post-taglist", "js-post-tag-list-wrapper", "post-menu", "js-post-menu", "post-signature", "comments", "answer"}
ASIDE = {"sidebar", "left-sidebar", "s-sidebarwidget", "sidebar-linked", "sidebar-related", "hot-network-questions", "footer",
         "js-zone-container", "everyonelovesstackoverflow"}
NOT_QUESTION = NOTICES | ASIDE | {"answers", "answer", "js-answer", "comments", "comment", "comments-list"}
CAPTCHAS = {"challenge-form", "challenge-running", "cf-browser-verification", "cf-turnstile", "g-recaptcha", "h-captcha",
            "nocaptcha-form"}

STATUS = re.compile(  # in English, Spanish, Portuguese, Russian and Japanese
    r"(?: ?\[(?:closed|duplicate|on hold|migrated|locked|protected|cerrada|duplicada|fechada|закрыт|дубликат|重複)\]){1,3}$",
    re.I)
OLD_NOTICE = re.compile(r"\s*(?:possible duplicates?:|this question already has (?:an )?answers? here)", re.I)
NOT_FOUND = re.compile(
    "page not found|página no encontrada|página não encontrada|страница не найдена|ページが見つかりません", re.I)
REMOVED = re.compile(r"(?:removed from [\w .&]{1,60} )?for reasons of moderation|voluntarily removed by its author", re.I)
NO_QUESTIONS = re.compile(r"(?<![\w.,])(?:no|0) (?:[\w-]+ ){0,3}(?:questions|results)\b|(?:n.t|not) (?:find|match) any", re.I)
CHALLENGE_TITLE = re.compile(
    r"just a moment|human verification|are you (?:a )?(?:human|robot)|too many requests|captcha$"
    r"|.{0,99}(?:\| cloudflare$|used cloudflare)", re.I)
CHALLENGE_TEXT = re.compile(
    r"verify(?:ing)? (?:that )?you are (?:a )?human|you.re not a robot|javascript and cookies to continue|checking your browser"
    r"|the security of your connection|connection is secure|unusual(?:ly)? (?:high )?(?:number of requests|traffic)", re.I)

ARCHIVE = re.compile(r"^(?:https?://web\.archive\.org)?/web/[0-9]{1,14}[a-z_]*/(?=https?://)")
BYTES_LITERAL = re.compile(r"\s*b['\"](?:\\[rnt]|\s)*(?=<)")
ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)", re.DOTALL)
TIME = re.compile(r"\s*(20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2})")


class PageError(ValueError):
    """A page that cannot be read; its text is the reason, in one line."""


class ChallengePage(PageError):
    """A page that asks for a human (a captcha, Cloudflare's check) in place of the page asked for."""


class RemovedPage(PageError):
    """A page that says that the question, or the address, is no longer there."""


class UnreadablePage(PageError):
    """A page without what was looked for: of another kind, of an unknown layout, or cut off."""


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
    page = _parse(html)
    question = next(iter(page.xpath("descendant::*[@id='question']") + page.xpath("descendant::*[@data-questionid]")), None)
    if question is None:
        raise _refusal(page, "no question block")
    block = _body_block(question)
    if block is None:
        raise UnreadablePage("a question with no body (truncated?)")
    _let_out_what_follows(block)
    own = list(_walk(question, NOT_QUESTION, block))
    canonical = page.xpath("string(descendant::link[@rel='canonical']/@href)")
    id = _located(url)[2] or _located(f"{base}/q/{question.get('data-questionid')}")[2] or _located(canonical)[2]
    title = _title(page, block)
    tags = _tags(own) if _goes_on_after_tags(html) else []
    score = _score(own, question)
    created = _created(page, own, block)
    body = _inner_html(block)
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
    page = _parse(html)
    nodes = list(_walk(page, ASIDE))
    listed = _under(nodes, {"question-summary", "s-post-summary"}) or _under(nodes, {"questions"})
    ids = _ids(filter(_is_title, listed or nodes), url, host) or _ids(listed, url, host)
    has_next = bool(page.xpath("descendant::a[contains(concat(' ', normalize-space(@rel), ' '), ' next ')]"))
    if not ids and (has_next or not _says_it_is_empty(page)):
        raise _refusal(page, "no question in the list (truncated?)")
    if not has_next and re.search("<html", html, re.I) and not re.search("</html", html, re.I):
        raise UnreadablePage("a list cut off before its pager (truncated?)")  # it would pass for the last page
    return Listing([question_url(base, id) for id in ids], has_next)


def is_challenge(html: str) -> bool:
    """Whether a page asks for a human in place of what was asked for. A question about captchas does not."""
    return _is_challenge(_parse(html))


def _parse(html: str) -> HtmlElement:
    if literal := BYTES_LITERAL.match(html):  # some pages are saved as Python writes bytes: b'<html>\r\n'
        data = ESCAPE.sub(_unescape, html[literal.end():]).encode("latin-1", "replace")
    else:
        data = html.encode("utf-8", "replace")  # bytes, because lxml takes no str that declares an encoding
    page = etree.fromstring(data, HTMLParser(encoding="utf-8", huge_tree=True))
    return HtmlElement() if page is None else page


def _unescape(escape: re.Match) -> str:
    code = escape[1]
    return chr(int(code[1:], 16)) if len(code) == 3 else {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)


def _classes(node: HtmlElement) -> set[str]:
    return set(node.get("class", "").split())


def _walk(root: HtmlElement, without: set[str] = frozenset(), but: HtmlElement | None = None) -> Iterator[HtmlElement]:
    """The elements from `root` on, in page order, save `but` and those with an id or class in `without`, with all they hold."""
    walker = etree.iterwalk(root, events=("start",))
    for _, node in walker:
        if node is but or node.get("id") in without or _classes(node) & without:
            walker.skip_subtree()
        else:
            yield node


def _line(text: str) -> str:
    return " ".join(tidy(text).split())


def _under(nodes: list[HtmlElement], names: set[str]) -> list[HtmlElement]:
    """Those of the nodes, which are in page order, that have an id or class in `names`, and all they hold."""
    inside = set()
    for node in nodes:
        if node.getparent() in inside or node.get("id") in names or _classes(node) & names:
            inside.add(node)
    return [node for node in nodes if node in inside]


def _text(page: HtmlElement) -> str:
    return _line(" ".join(page.xpath("descendant::text()[not(parent::script or parent::style)]")))  # //text() is quadratic


def _headings(page: HtmlElement) -> list[str]:
    return [heading for path in ("string(descendant::title)", "string(descendant::h1)") if (heading := _line(page.xpath(path)))]


def _refusal(page: HtmlElement, reason: str) -> PageError:
    """What is wrong with a page that holds no question."""
    headings = _headings(page)
    if removed := REMOVED.search(_text(page)) or next(filter(None, map(NOT_FOUND.match, headings)), None):
        return RemovedPage(removed[0])
    if _is_challenge(page):
        return ChallengePage(f"a page that asks for a human: {' '.join(headings)[:80]!r}")
    return UnreadablePage(reason)


def _is_challenge(page: HtmlElement) -> bool:
    headings = _headings(page)
    expected = page.xpath("descendant::*[@id='question' or @id='questions' or @data-questionid]")
    if expected or any(map(NOT_FOUND.match, headings)):  # they too may hold a captcha, for the form to log in
        return False
    if any(map(CHALLENGE_TITLE.match, headings)) or CHALLENGE_TEXT.search(_text(page)):
        return True
    if any(node.get("id") in CAPTCHAS or _classes(node) & CAPTCHAS for node in _walk(page)):
        return True
    return bool(page.xpath("descendant::script[contains(., '_cf_chl_opt')] | descendant::iframe[contains(@src, 'captcha')]"))


def _says_it_is_empty(page: HtmlElement) -> bool:
    lists = page.xpath("descendant::*[@id='questions']")[:1]
    empty = [node for node in lists if not tidy(node.text_content()) and node.xpath("following::*[1]")]  # else it was cut there
    return bool(empty or NO_QUESTIONS.search(_text(page)))


def _page_address(url: str) -> tuple[str, str]:
    scheme, host, _ = _located(url)
    if not NAME.fullmatch(host):
        raise UnreadablePage(f"not the address of a page: {url[:80]!r}")
    return f"{scheme}://{host}", host


def _located(href: str, page: str = "") -> tuple[str, str, str | None]:
    """Scheme and host of an address, and the id where it is a question's; empty strings for no web address."""
    try:
        url = urljoin(ARCHIVE.sub("", page.strip()), ARCHIVE.sub("", href.strip()))
        parts = urlsplit(url)
        if parts.scheme in ("http", "https"):
            return parts.scheme, parts.netloc.lower().removeprefix("www."), question_id(url)
    except ValueError:  # such as http://[
        pass
    return "", "", None


def _is_title(node: HtmlElement) -> bool:
    around = node.getparent()
    return around is not None and around.tag != "h1" and (
        "question-hyperlink" in _classes(node) or around.tag in ("h2", "h3", "h4"))


def _ids(nodes: Iterable[HtmlElement], page: str, host: str) -> list[str]:
    """The ids of the questions of a host that the links among the nodes lead to, each once."""
    located = (_located(node.get("href"), page) for node in nodes if node.tag == "a" and node.get("href"))
    return list(dict.fromkeys(id for _, at, id in located if id and at == host))


def _body_block(question: HtmlElement) -> HtmlElement | None:
    nodes = list(_walk(question, NOT_QUESTION))
    by_meaning = [node for node in nodes if node.get("itemprop") in ("text", "description") and node.tag != "meta"]
    return next(iter(by_meaning + [node for name in BODIES for node in nodes if name in _classes(node)]), None)


def _let_out_what_follows(block: HtmlElement) -> None:
    """An unclosed tag in a body takes in the rest of the page, tags and answers: move that to after the block."""
    node = next((node for node in _walk(block) if _classes(node) & AFTER_BODY), block)
    strays = [] if node is block else [node]
    while node is not block:
        strays += node.itersiblings()
        node = node.getparent()
    for stray in reversed(strays):
        block.addnext(stray)


def _inner_html(block: HtmlElement) -> str:
    for node in _walk(block):
        if _classes(node) & NOTICES:
            node.tag = "notice"
    etree.strip_elements(block, "notice", with_tail=False)
    # The notices of 2011 to 2013 have no class of their own, but nothing stands before them.
    while not (block.text or "").strip() and (first := next(block.iterchildren("*"), None)) is not None:
        if first.tag not in ("blockquote", "div", "aside", "table") or not OLD_NOTICE.match(first.text_content()):
            break
        first.drop_tree()
    block.tag, block.tail = "div", None
    block.attrib.clear()
    return etree.tostring(block, encoding="unicode", method="html").removeprefix("<div>").removesuffix("</div>").strip()


def _title(page: HtmlElement, block: HtmlElement) -> str | None:
    """The heading before the body. Never the page's <title>, which most often begins with a tag."""
    before = [node for node in takewhile(lambda node: node is not block, page.iter("*")) if node.tag == "h1"]
    for heading in sorted(reversed(before), key=lambda node: node.get("itemprop") != "name"):  # stable: else the nearest
        links = [link for link in heading.iter("a") if "question-hyperlink" in _classes(link)] or [heading]
        if title := STATUS.sub("", _line(links[0].text_content())):
            return title
    return None


def _tags(own: list[HtmlElement]) -> list[str]:
    links = [node for node in own if node.tag == "a" and "post-tag" in _classes(node)]
    named = (_line(link.text_content()) or _line(unquote(link.get("href", "").rpartition("/")[2])) for link in links)
    return list(dict.fromkeys(filter(None, named)))


def _goes_on_after_tags(html: str) -> bool:
    """Whether a tag list was received to its end: the parser closes what a cut page leaves open, and hides the cut."""
    return bool(re.search(r"</(?:div|ul|ol|p|td|section|body|html)\b", html[html.rfind("post-tag"):], re.I))


def _score(own: list[HtmlElement], question: HtmlElement) -> int | None:
    counts = (node.get("data-value") or node.text_content() for node in own
              if node.get("itemprop") == "upvoteCount" or _classes(node) & {"js-vote-count", "vote-count-post"})
    number = re.fullmatch(r"\s*([-−]?[0-9]{1,9})\s*", next(counts, question.get("data-score", "")))
    return int(number[1].replace("−", "-")) if number else None


def _created(page: HtmlElement, own: list[HtmlElement], block: HtmlElement) -> int | None:
    marked = [node.get("datetime", "") for node in _walk(page, NOT_QUESTION, block) if node.get("itemprop") == "dateCreated"]
    signed = [node.get("title", "") for node in own if "relativetime" in _classes(node) and _is_asking(node)]
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
    is_signed = _classes(action) & {"user-action-time", "post-signature", "s-user-card--time"}
    return bool(is_signed) and not (action.text or "").strip().lower().startswith("edited")
