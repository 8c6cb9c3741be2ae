"""Text in, clean text out: HTML to plain text, fields to one input text, label cells to lists.

Labels are parsed, never evaluated. The serving install uses `compose` and `tidy`, which need the standard library only:
a tagger reads plain text, as people type it, and the cleaning here turns training texts into just that.
"""

import ast
import html
import json
import re
import unicodedata
from collections.abc import Mapping

PARAGRAPH_TAGS = frozenset((
    "address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "figure", "footer", "h1", "h2", "h3", "h4", "h5",
    "h6", "header", "hr", "ol", "p", "pre", "section", "table", "tr", "ul",
))
LINE_TAGS = frozenset(["br", "li", "option", "td", "th"])
HIDDEN_TAGS = frozenset(["head", "script", "style", "template"])
MAX_MARKS = 30  # as in Unicode's stream-safe text: no script stacks so many
MAX_LABEL_CELL = 20_000  # characters; a longer cell is no tag list

# Names of entities that are no English words: " percent;" must stay as it is.
_LOST_AMPERSAND = re.compile(
    r"(?:^| )(#\d{2,4};|#[xX][0-9a-fA-F]{2,4};|(?:quot|amp|apos|lt|gt|nbsp|hellip|[mn]dash|[lr][sd]quo|"
    r"[a-zA-Z](?:acute|grave|circ|uml|tilde|cedil));)", re.MULTILINE)
_ESCAPED_TAG = re.compile(
    r"&lt;(/?(?:a|b|big|blockquote|br|center|cite|code|del|div|em|font|h[1-6]|hr|i|img|ins|li|nobr|ol|p|pre|small|span|strike|"
    r"strong|sub|sup|table|tbody|td|th|tr|tt|u|ul)(?:[\s/][^&]*)?)&gt;", re.IGNORECASE)
_MAYBE_MARKS = re.compile(rf"[^\w\s\x00-\x7f]{{{MAX_MARKS + 1},}}")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def html_to_text(markup: str) -> str:
    """Plain text of an HTML fragment: paragraphs parted by a blank line; `br`, list items and cells start a line.

    >>> html_to_text("<p>Fish &amp;amp; chips</p><p>Salt<br>&eacute;</p>")
    'Fish &amp; chips\\n\\nSalt\\né'
    """
    from lxml import etree  # here, because the serving install imports this module but never meets HTML

    root = etree.fromstring("<div>" + _UNPRINTABLE.sub(" ", markup), etree.HTMLParser(huge_tree=True))
    pieces: list[str] = []
    preformatted = 0

    def add(text: str | None) -> None:
        if text:
            pieces.append(text if preformatted else text.replace("\n", " ").replace("\r", " "))

    walker = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, node in walker:
        if event == "start":
            pieces.append("\n\n" if node.tag in PARAGRAPH_TAGS else "\n" if node.tag in LINE_TAGS else "")
            preformatted += node.tag == "pre"
            if node.tag in HIDDEN_TAGS:
                walker.skip_subtree()
            else:
                add(node.text)
        else:  # the end of an element, or a comment, of which only what follows is text
            if event == "end":
                preformatted -= node.tag == "pre"
                pieces.append("\n\n" if node.tag in PARAGRAPH_TAGS else "")
            add(node.tail)
    return tidy("".join(pieces))


def mend_html(markup: str) -> str:
    """HTML as it was, from HTML that lost its `&` to spaces, had its `<` and `>` escaped and its line ends turned into
    backslashes, as AG's corpus of news has it. Only tags of HTML are restored: `&lt;MSFT.O&gt;` stays text.

    >>> mend_html(r"AT amp;T #39;s second\\offer: \\$5 &lt;b&gt;...&lt;/b&gt;")
    'AT&amp;T&#39;s second offer: $5 <b>...</b>'
    """
    markup = re.sub(r"\\+(\$?)", lambda found: "$" if found[0] == r"\$" else f" {found[1]}", markup)
    return _ESCAPED_TAG.sub(r"<\1>", _LOST_AMPERSAND.sub(r"&\1", markup))


def tidy(text: str) -> str:
    """NFC, no control characters or lone surrogates, single spaces, at most one blank line in a row.

    >>> tidy("  a\\u00a0 b\\r\\n\\n\\n\\nc ")
    'a b\\n\\nc'
    """
    text = _UNPRINTABLE.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.isascii():
        text = unicodedata.normalize("NFC", _MAYBE_MARKS.sub(_few_marks, text))
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _few_marks(run: re.Match) -> str:
    """Without the combining marks after the MAX_MARKSth on a letter: NFC sorts them in a time that grows with their square."""
    kept, marks = [], 0
    for character in run[0]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def compose(template: str, fields: dict[str, str]) -> str:
    """The input text of one row: the template filled with its (plain text) fields, tidied.

    >>> compose("{title}\\n\\n{body}", {"title": "Who is Q?", "body": ""})
    'Who is Q?'
    """
    return tidy(template.format_map(fields))


def text_of(row: Mapping, form) -> str:
    """The input text of a row as a file has it, "" where it has none. `form` tells how: a task's `input`, or a model's
    manifest, with `fields`, `template`, and the fields that hold HTML, `html` and `damaged_html`. A missing field is empty."""
    fields = {name: plain(row.get(name), name in form.html, name in form.damaged_html) for name in form.fields}
    return compose(form.template, fields) if any(fields.values()) else ""


def plain(value, html: bool = False, damaged_html: bool = False) -> str:
    """A file's value as plain text, "" for None and NaN."""
    if value is None or value != value:  # NaN differs from itself
        return ""
    text = value.decode("utf8", "replace") if isinstance(value, bytes) else str(value)
    if damaged_html:
        return html_to_text(mend_html(text))
    return html_to_text(text) if html else tidy(text)


def parse_labels(cell, form: str = "auto") -> list[str]:
    """The labels in one cell, in order, each once. None and blank cells give [].

    `form` is one of json, python, angle (`<a><b>`), pipe (`a|b`), comma, space, single, paths (`Fiction » Horror; Poetry`,
    or a list in JSON, as `export` writes it to CSV), or auto, which decides by the first character and the separators present.
    Raises ValueError for a cell that is no label list of that form.

    >>> parse_labels("<time-travel><robots>"), parse_labels("['a', 'b']"), parse_labels("|a|b|")
    (['time-travel', 'robots'], ['a', 'b'], ['a', 'b'])
    """
    if hasattr(cell, "tolist"):  # a NumPy array, as a parquet file's list column gives
        cell = cell.tolist()
    if cell is None or cell != cell:  # NaN, the empty cell of a data frame, differs from itself
        return []
    labels = _split_labels(cell.strip(), form) if isinstance(cell, str) else cell
    if not isinstance(labels, (list, tuple, set, frozenset)):
        raise ValueError(f"a list of labels was expected, not {type(labels).__name__}")
    if isinstance(labels, (set, frozenset)):
        labels = sorted(labels, key=str)
    if wrong := [label for label in labels if not isinstance(label, str)]:
        raise ValueError(f"a label must be a text, not {wrong[0]!r}")
    return list(dict.fromkeys(filter(None, (tidy(label) for label in labels))))


def _split_labels(cell: str, form: str):
    if not cell:
        return []
    if len(cell) > MAX_LABEL_CELL:
        raise ValueError(f"{len(cell)} characters are too many for a label list")
    if form == "auto":
        form = _guess_form(cell)
    if form == "json" or (form == "paths" and cell[0] == "["):
        return _json(cell)
    if form == "paths":
        return html.unescape(cell).split(";")  # an entity ends with a semicolon, too
    if form == "python":
        return _python_literal(cell)
    if form == "angle":
        if not re.fullmatch(r"(<[^<>]+>\s*)+", cell):
            raise ValueError(f"not of the form <a><b>: {cell[:60]!r}")
        return re.findall(r"<([^<>]+)>", cell)
    if form == "single":
        return [cell]
    return cell.split({"pipe": "|", "comma": ",", "space": None}[form])


def _guess_form(cell: str) -> str:
    if cell[0] in "[({":
        try:
            _json(cell)
        except ValueError:
            return "python"
        return "json"
    if cell[0] == "<":
        return "angle"
    if "|" in cell:
        return "pipe"
    return "comma" if "," in cell else "space"


def _json(cell: str):
    try:
        return json.loads(cell)  # its JSONDecodeError is a ValueError
    except RecursionError:
        raise ValueError("nested too deeply for a label list") from None


def _python_literal(cell: str):
    try:
        return ast.literal_eval(cell)  # literals only: it runs no code
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"neither JSON nor a Python list: {cell[:60]!r}") from None
