"""What the readers of pages share: HTML parsed as browsers and archives give it, walked, and told from a page that asks for a
human. What a site's pages mean is read in `pages.py` (Stack Exchange) and `book_pages.py` (a bookshop)."""

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from lxml import etree
from lxml.html import HtmlElement, HTMLParser

from tagwright.text import tidy

CAPTCHAS = {"challenge-form", "challenge-running", "cf-browser-verification", "cf-turnstile", "g-recaptcha", "h-captcha",
            "nocaptcha-form"}
NOT_FOUND = re.compile(
    "page not found|página no encontrada|página não encontrada|страница не найдена|ページが見つかりません", re.I)
CHALLENGE_TITLE = re.compile(
    r"just a moment|human verification|are you (?:a )?(?:human|robot)|too many requests|captcha$"
    r"|.{0,99}(?:\| cloudflare$|used cloudflare)", re.I)
CHALLENGE_TEXT = re.compile(
    r"verify(?:ing)? (?:that )?you are (?:a )?human|you.re not a robot|javascript and cookies to continue|checking your browser"
    r"|the security of your connection|connection is secure|unusual(?:ly)? (?:high )?(?:number of requests|traffic)", re.I)
ARCHIVE = re.compile(r"^(?:https?://web\.archive\.org)?/web/[0-9]{1,14}[a-z_]*/(?=https?://)")
BYTES_LITERAL = re.compile(r"\s*b['\"](?:\\[rnt]|\s)*(?=<)")
ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)", re.DOTALL)


class PageError(ValueError):
    """A page that cannot be read; its text is the reason, in one line."""


class ChallengePage(PageError):
    """A page that asks for a human (a captcha, Cloudflare's check) in place of the page asked for."""


class RemovedPage(PageError):
    """A page that says that what was asked for is not, or no longer, to be had there."""


class UnreadablePage(PageError):
    """A page without what was looked for: of another kind, of an unknown layout, or cut off."""


def parse(html: str) -> HtmlElement:
    if literal := BYTES_LITERAL.match(html):  # some pages are saved as Python writes bytes: b'<html>\r\n'
        data = ESCAPE.sub(_unescape, html[literal.end():]).encode("latin-1", "replace")
    else:
        data = html.encode("utf-8", "replace")  # bytes, because lxml takes no str that declares an encoding
    page = etree.fromstring(data, HTMLParser(encoding="utf-8", huge_tree=True))
    return HtmlElement() if page is None else page


def absolute(href: str, page: str = "") -> str:
    """The web address that a link on a page leads to, without the archive's prefix; an empty text where it is none."""
    try:
        url = urljoin(ARCHIVE.sub("", page.strip()), ARCHIVE.sub("", href.strip()))
        return url if urlsplit(url).scheme in ("http", "https") else ""
    except ValueError:  # such as http://[
        return ""


def classes(node: HtmlElement) -> set[str]:
    return set(node.get("class", "").split())


def walk(root: HtmlElement, without: set[str] = frozenset(), but: HtmlElement | None = None) -> Iterator[HtmlElement]:
    """The elements from `root` on, in page order, save `but` and those whose name, id or class is in `without`, with all that
    they hold."""
    walker = etree.iterwalk(root, events=("start",))
    for _, node in walker:
        if node is but or node.tag in without or node.get("id") in without or classes(node) & without:
            walker.skip_subtree()
        else:
            yield node


def under(nodes: list[HtmlElement], names: set[str]) -> list[HtmlElement]:
    """Those of the nodes, which are in page order, that have an id or class in `names`, and all they hold."""
    inside = set()
    for node in nodes:
        if node.getparent() in inside or node.get("id") in names or classes(node) & names:
            inside.add(node)
    return [node for node in nodes if node in inside]


def line(text: str) -> str:
    """The text in one line, without spaces at its ends."""
    return " ".join(tidy(text).split())


def text_of(page: HtmlElement) -> str:
    return line(" ".join(page.xpath("descendant::text()[not(parent::script or parent::style)]")))  # //text() is quadratic


def headings(page: HtmlElement) -> list[str]:
    """The page's <title> and its first heading, as far as it has them."""
    return [text for path in ("string(descendant::title)", "string(descendant::h1)") if (text := line(page.xpath(path)))]


def inner_html(block: HtmlElement) -> str:
    """What a block holds, as HTML; the block loses its name and attributes by it."""
    block.tag, block.tail = "div", None
    block.attrib.clear()
    return etree.tostring(block, encoding="unicode", method="html").removeprefix("<div>").removesuffix("</div>").strip()


def asks_for_a_human(page: HtmlElement, content: str) -> bool:
    """Whether a page is a captcha's or a check's. `content` is an XPath of what the site's own pages hold."""
    shown = headings(page)
    if page.xpath(content) or any(map(NOT_FOUND.match, shown)):  # they too may hold a captcha, for the form to log in
        return False
    if any(map(CHALLENGE_TITLE.match, shown)) or CHALLENGE_TEXT.search(text_of(page)):
        return True
    if any(node.get("id") in CAPTCHAS or classes(node) & CAPTCHAS for node in walk(page)):
        return True
    return bool(page.xpath("descendant::script[contains(., '_cf_chl_opt')] | descendant::iframe[contains(@src, 'captcha')]"))


def refusal(page: HtmlElement, removed: re.Match | None, content: str, reason: str) -> PageError:
    """What is wrong with a page that cannot be read: where it says so itself (`removed`), else `reason`; `content` as above."""
    shown = headings(page)
    if removed := removed or next(filter(None, map(NOT_FOUND.match, shown)), None):
        return RemovedPage(removed[0])
    if asks_for_a_human(page, content):
        return ChallengePage(f"a page that asks for a human: {' '.join(shown)[:80]!r}")
    return UnreadablePage(reason)


def _unescape(escape: re.Match) -> str:
    code = escape[1]
    return chr(int(code[1:], 16)) if len(code) == 3 else {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)
