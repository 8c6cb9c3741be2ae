"""How a Stack Exchange site writes its pages: today, and in its older years (about 2013 to 2018).

The structure is the real sites'; every sentence is this project's own. What surrounds a question (related questions,
comments, its tags once more, answers with links to tags) is there to catch a reader that looks too widely.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from .questions import Question, escape

SITES = ["Baking", "Woodwork", "Sailing", "Chess", "Beekeeping", "Calligraphy", "Cartography", "Gardening"]


def address(question: Question) -> str:
    return f"/questions/{question.id}/{question.slug}"


def question_page(question: Question, others: Sequence[Question], old: bool) -> str:
    """A question's page; `others` are shown as related ones."""
    content = f"""<div itemprop="mainEntity" itemscope itemtype="https://schema.org/Question"><div id="question-header">
<h1 itemprop="name" class="fs-headline1"><a href="{address(question)}" class="question-hyperlink">{_title(question)}</a></h1>
<a href="/questions/ask" class="s-btn">Ask Question</a></div>
{"" if old else _times(question)}<div id="mainbar" role="main">{_old_post(question) if old else _post(question)}
<div id="answers"><h2 data-answercount="{len(question.answers)}">{len(question.answers)} Answers</h2>
{"".join(_answer(question, number, old) for number in range(len(question.answers)))}
<h2 class="bottom-notice">Nothing here that helps? There is more under {_tags(question, old)}.</h2></div></div>
{_sidebar(others)}</div>"""
    return _frame(f"{escape(question.tags[0])} - {escape(question.title)}", content)


def listing_page(questions: Sequence[Question], page: int, pages: int, old: bool) -> str:
    """One page of the newest questions; `questions` is empty for a `page` beyond the last."""
    rows = "".join(map(_old_summary if old else _summary, questions))
    content = f"""<div id="mainbar" role="main"><h1 class="fs-headline1">All Questions</h1>
<div id="questions" class="flush-left">{rows}</div>{_pager(page, pages, old)}</div>{_sidebar(())}"""
    return _frame("Newest Questions", content)


def missing_page(text: str) -> str:
    """The 404 page, for what never was and for what was removed."""
    return _frame("Page not found", f'<div id="mainbar-full"><h1>Page not found</h1><p class="fs-subheading">{text}</p></div>')


CHALLENGE = """<!DOCTYPE html>
<html lang="en-US"><head><title>Just a moment...</title><meta name="robots" content="noindex,nofollow"></head>
<body class="no-js"><div class="main-wrapper" role="main"><div class="main-content">
<h2 id="challenge-running">A check of your browser has to pass first.</h2>
<noscript><div id="challenge-error-title">Scripts and cookies are needed to go on.</div></noscript></div></div>
<script>window._cf_chl_opt = {cType: "managed", cRay: "0000000000000000"};</script>
<script src="/cdn-cgi/challenge-platform/h/b/orchestrate/chl_page/v1"></script></body></html>
"""


def _title(question: Question) -> str:
    return escape(f"{question.title} [{question.closed}]" if question.closed else question.title)


def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _date(seconds: int) -> str:
    shown = datetime.fromtimestamp(seconds, UTC).strftime("%b %d, %Y at %H:%M")
    return f"<span title='{_stamp(seconds)}' class='relativetime'>{shown}</span>"


def _tags(question: Question, old: bool) -> str:
    links = [
        f'<a href="/questions/tagged/{quote(tag)}" class="{"" if old else "s-tag "}post-tag"'
        f' title="show questions tagged &#39;{tag}&#39;" rel="tag">{tag}</a>'
        for tag in question.tags
    ]
    if old:
        return " ".join(links)
    items = "".join(f"<li class='d-inline mr4 js-post-tag-list-item'>{link}</li>" for link in links)
    return f"<ul class='ml0 list-ls-none js-post-tag-list-wrapper d-inline'>{items}</ul>"


def _times(question: Question) -> str:
    return f"""<div class="d-flex fw-wrap"><div title="{_stamp(question.created)}">Asked
<time itemprop="dateCreated" datetime="{_stamp(question.created)}">some years ago</time></div>
<div>Modified <a href="?lastactivity" title="{_stamp(question.active)}">lately</a></div>
<div title="Viewed {question.views:,} times">Viewed {question.views:,} times</div></div>"""


def _post(question: Question) -> str:
    return f"""<div class="question js-question" data-questionid="{question.id}" data-score="{question.score}" id="question">
<div class="post-layout"><div class="votecell post-layout--left"><div class="js-voting-container">
<div class="js-vote-count flex--item" itemprop="upvoteCount" data-value="{question.score}">
{question.score}        </div></div></div><div class="postcell post-layout--right">
<div class="s-prose js-post-body" itemprop="text">
{_notice(question, '<aside class="s-notice s-notice__info post-notice js-post-notice mb16" role="status">', "</aside>")}
{question.body}
</div>
<div class="post-taglist d-flex"><div class="d-flex ps-relative fw-wrap">{_tags(question, old=False)}</div></div>
{_signature(question)}{_comments(question)}</div></div></div>"""


def _old_post(question: Question) -> str:
    css = "question-status question-originals-of-duplicate" if question.closed == "duplicate" else "question-status"
    return f"""<div class="question" data-questionid="{question.id}" id="question"><table><tr><td class="votecell">
<div class="vote"><a class="vote-up-off">up vote</a>
<span itemprop="upvoteCount" class="vote-count-post ">{question.score}</span><a class="vote-down-off">down vote</a></div></td>
<td class="postcell"><div class="post-text" itemprop="text">
{_notice(question, f'<div class="{css}">', "</div>")}
{question.body}
</div>
<div class="post-taglist">
{_tags(question, old=True)}
</div>{_signature(question)}</td></tr><tr><td class="votecell"></td><td>{_comments(question)}</td></tr></table></div>"""


def _notice(question: Question, start: str, end: str) -> str:
    """What a closed question says of itself, which stands inside the block of its body."""
    original = f'<a href="/questions/{question.id - 1}/an-older-one" dir="ltr">An older one</a>'
    said = {"closed": "<b>Closed.</b> Too wide for one answer.", "duplicate": f"<b>Asked before</b>: {original} (2 answers)"}
    when = f"<div>Closed {_date(question.created + 3600)}.</div>"
    return f"{start}<div>{said[question.closed]}</div>{when}{end}" if question.closed else ""


def _signature(question: Question) -> str:
    """Who asked; for some, after an editor with a date of their own."""
    edited = f'<div class="post-signature"><div class="user-action-time">edited {_date(question.created + 5000)}</div></div>'
    return f"""{edited if question.id % 3 == 0 else ""}<div class="post-signature owner"><div class="user-info">
<div class="user-action-time">asked {_date(question.created)}</div>
<img src="/static/avatar-{question.id % 8}.gif" alt="" width="32" height="32"><div class="user-details" itemprop="author">
<a href="/users/{question.id}">{escape(question.owner)}</a></div></div></div>"""


def _comments(question: Question) -> str:
    comment = f"""<li class="comment js-comment"><span class="comment-copy">Roughly <b>when</b> was that?</span>
<span class="comment-date"><span title="{_stamp(question.created + 600)}, License: CC BY-SA 4.0"
 class="relativetime-clean">later</span></span></li>"""
    return f'<ul class="comments-list js-comments-list">{comment * 3}</ul>'


def _answer(question: Question, number: int, old: bool) -> str:
    created = question.created + 86_400 * (number + 1)
    return f"""<div id="answer-{question.id}{number}" class="answer js-answer" itemscope itemtype="https://schema.org/Answer">
<div class="{"post-text" if old else "s-prose js-post-body"}" itemprop="text">{question.answers[number]}</div>
<div class="post-signature"><div class="user-action-time">answered
<time itemprop="dateCreated" datetime="{_stamp(created)}">{_date(created)}</time></div></div></div>"""


def _summary(question: Question) -> str:
    counts = ((question.score, "votes"), (len(question.answers), "answers"), (question.views, "views"))
    stats = "".join(
        f"""<div class="s-post-summary--stats-item"><span class="s-post-summary--stats-item-number">{count}</span>
<span class="s-post-summary--stats-item-unit">{unit}</span></div>"""
        for count, unit in counts
    )
    return f"""<div id="question-summary-{question.id}" class="s-post-summary    js-post-summary" data-post-id="{question.id}">
<div class="s-post-summary--stats">{stats}</div><div class="s-post-summary--content">
<h3 class="s-post-summary--content-title"><a href="{address(question)}" class="s-link">{_title(question)}</a></h3>
<div class="s-post-summary--content-excerpt">{_excerpt(question)}</div>
<div class="s-post-summary--meta"><div class="s-post-summary--meta-tags tags js-tags">{_tags(question, old=False)}</div>
<time class="s-user-card--time">asked {_date(question.created)}</time></div></div></div>"""


def _old_summary(question: Question) -> str:
    return f"""<div class="question-summary" id="question-summary-{question.id}"><div class="statscontainer">
<span class="vote-count-post "><strong>{question.score}</strong></span>
<div class="status answered"><strong>{len(question.answers)}</strong>answers</div></div>
<div class="summary"><h3><a href="{address(question)}" class="question-hyperlink">{_title(question)}</a></h3>
<div class="excerpt">{_excerpt(question)}</div><div class="tags">{_tags(question, old=True)}</div>
<div class="started fr"><div class="user-action-time">asked {_date(question.created)}</div></div></div></div>"""


def _excerpt(question: Question) -> str:
    return re.sub(r"<[^>]*>|&\w*$", "", question.body[:280]).partition("<")[0] + " ..."


def _pager(page: int, pages: int, old: bool) -> str:
    """Links to the first and last page, to the one before and the one after; none on a page beyond the last."""
    links = [(1, "", "1"), (pages, "", str(pages))] if page <= pages else []
    links += [(page - 1, "prev", "Prev")] if 1 < page <= pages else []
    links += [(page + 1, "next", "Next")] if page < pages else []
    shown = "".join(
        f'<a class="s-pagination--item" href="/questions?tab=newest&amp;page={number}" rel="{rel}" title="Go to page {number}">'
        f' <span class="page-numbers {rel}"> {text}</span> </a>'
        for number, rel, text in links
    )
    return f'<div class="{"pager fl" if old else "s-pagination pager"}"><span class="is-selected">{page}</span>{shown}</div>'


def _sidebar(others: Sequence[Question]) -> str:
    """Links to other questions, here and elsewhere, in the same class as the page's own title."""
    rows = [
        f"""<div class="spacer"><a href="/q/{other.id}"><div class="answer-votes default">{other.score}</div></a>
<a href="{address(other)}?noredirect=1" class="question-hyperlink">{_title(other)}</a></div>"""
        for other in others
    ]
    hot = "".join(
        f"""<li><a href="https://{site.lower()}.example/questions/{300 + number}/hot" class="js-gps-track question-hyperlink">
A question about {site.lower()}, number {number + 1} of this hour</a></li>"""
        for number, site in enumerate(SITES * 3)
    )
    return f"""<div id="sidebar"><div class="module sidebar-linked"><h4>Linked</h4>{"".join(rows[::2])}</div>
<div class="module sidebar-related"><h4>Related</h4>{"".join(rows)}</div>
<div id="hot-network-questions" class="module"><h4>Hot Network Questions</h4><ul>{hot}</ul></div></div>"""


# The bulk of a real page: a script's settings in its head, links to other sites at its foot.
SETTINGS = ",".join(f'"Js/module-{n}.en.js":"{hashlib.sha256(str(n).encode()).hexdigest()[:12]}"' for n in range(600))
FOOTER = "".join(
    f"""<li class="s-footer--item"><a href="https://{SITES[n % 8].lower()}-{n}.example" class="s-footer--link js-gps-track"
 data-gps-track="footer.click({{ location: 4, link: {n} }})">{SITES[n % 8]} no. {n}</a></li>"""
    for n in range(190)
)


def _frame(title: str, content: str) -> str:
    return f"""<!DOCTYPE html>
<html itemscope itemtype="https://schema.org/QAPage" class="html__responsive" lang="en"><head>
<title>{title} - Stand-in Exchange</title><link rel="shortcut icon" href="/static/icon.gif">
<meta property="og:site_name" content="Stand-in Exchange"><meta property="og:title" itemprop="name" content="{title}">
<link rel="stylesheet" type="text/css" href="/static/primary.css"><script src="/static/full.js"></script>
<script>window.cacheBreakers={{{SETTINGS}}};</script></head><body class="unified-theme">
<header class="s-topbar"><a href="/"><img src="/static/logo.gif" alt="Stand-in Exchange" width="150" height="30"></a>
<form id="search" action="/search"><input name="q" placeholder="Search"></form><a href="/tags">Tags</a></header>
<div class="container"><div id="content" class="snippet-hidden">
{content}
</div></div><footer id="footer" class="site-footer"><ul>{FOOTER}</ul></footer></body></html>
"""
