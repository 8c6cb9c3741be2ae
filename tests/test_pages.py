"""Readers of Stack Exchange pages: on real saved pages, on a small page for each variant and trap, and on damaged ones."""

import os
import random
import time
from pathlib import Path

import pytest

from tagwright.markup import ChallengePage, PageError, RemovedPage, UnreadablePage
from tagwright.pages import is_challenge, read_listing, read_question
from tagwright.task import ROOT

PAGES = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "pages" / "stackexchange"
real = pytest.mark.skipif(not PAGES.is_dir(), reason=f"no saved pages at {PAGES}")


# --- real pages: what is expected was read off their HTML by eye

REAL_QUESTIONS = {
    "question_2013-10": dict(
        url="http://stackoverflow.com/questions/948135/how-can-i-write-a-switch-statement-in-ruby", id="948135", score=595,
        title="How can I write a switch statement in Ruby?", tags=["ruby", "switch-statement"],
        created=1244078280,  # asked 2009-06-04 01:18:00Z
        begins="<p>How do I write a switch statement in Ruby?</p>", ends="<p>How do I write a switch statement in Ruby?</p>",
        answers=["Ruby uses the case expression", "case...when"]),
    "question_2018-06": dict(  # saved as Python writes bytes, b'<!DOCTYPE html>\r\n…'
        url="https://stackoverflow.com/questions/30484028/file-handling-in-gui", id="30484028", score=0,
        title="File Handling in Gui", tags=["python", "tkinter", "file-handling"],
        created=1432733522,  # asked 2015-05-27 13:32:02Z, edited 13:47:54Z
        begins="<p>I have a hard time using file handling when I combine my main function and the gui code.",
        ends="and then I am trying to implement it with TKinter.</p>",
        answers=["The answer to your specific question", "askopenfilename", "which version of python", "\\n", "\\'"]),
    "question_2021-03": dict(
        url="https://stackoverflow.com/questions/19687421", id="19687421", score=141,
        title="Difference between BeautifulSoup and Scrapy crawler?", tags=["python", "beautifulsoup", "scrapy", "web-crawler"],
        created=1383147803,  # asked 2013-10-30 15:43:23Z
        begins="<p>I want to make a website that shows the comparison between amazon and e-bay product price.\nWhich",
        ends="but not so much with <strong>Scrapy crawler</strong>.</p>",
        answers=["Web-spider", "Why would you use crawlers", "Nishant Bhakta"]),
    "question_2025-04": dict(  # a community wiki, signed with no date: the date stands under the title only
        url="https://stackoverflow.com/questions/4/how-to-convert-decimal-to-double-in-c", id="4", score=815,
        title="How to convert Decimal to Double in C#?",
        tags=["c#", "floating-point", "type-conversion", "double", "decimal"], created=1217540572,  # 2008-07-31 21:42:52Z
        begins="<p>I want to assign the decimal variable <code>trans</code> to the double variable",
        ends="<blockquote>\n<p>Cannot implicitly convert type decimal to double</p>\n</blockquote>",
        answers=["An explicit cast", "Decimal can't represent", "Eggs McLaren"]),
}


def saved(name: str) -> str:
    return (PAGES / f"{name}.html").read_bytes().decode("utf8")


@real
@pytest.mark.parametrize("name", REAL_QUESTIONS)
def test_a_real_question_is_read_in_every_field(name):
    expected = REAL_QUESTIONS[name]
    item = read_question(saved(name), expected["url"])
    for field in ("id", "title", "tags", "score", "created"):
        assert getattr(item, field) == expected[field], field
    assert (item.site, item.source) == ("stackoverflow", "browser")
    assert item.url == f"{expected['url'].partition('/questions')[0]}/questions/{expected['id']}"
    assert item.body.startswith(expected["begins"])
    assert item.body.endswith(expected["ends"])
    assert not any(text in item.body for text in expected["answers"])
    assert not is_challenge(saved(name))


@real
@pytest.mark.parametrize(("name", "url", "number", "ids"), [
    ("listing_2015-08", "http://stackoverflow.com/questions/tagged/rust?sort=votes", 50, ["9350125", "15871885", "21011330"]),
    ("listing_2024-10", "https://skeptics.stackexchange.com/questions?tab=newest", 15, ["57371", "57370", "57310"]),
])
def test_a_real_listing_is_read_in_order(name, url, number, ids):
    listing = read_listing(saved(name), url)
    base = url.partition("/questions")[0]
    assert [listing.urls[place] for place in (0, 1, -1)] == [f"{base}/questions/{id}" for id in ids]
    assert (len(listing.urls), len(set(listing.urls)), listing.has_next) == (number, number, True)
    assert not is_challenge(saved(name))


@real
@pytest.mark.parametrize("name", REAL_QUESTIONS)
def test_a_real_question_cut_anywhere_gives_all_of_it_or_an_error(name):
    expected, page = REAL_QUESTIONS[name], saved(name)
    tags = page.index("post-taglist")  # thirty cuts over the page, and all through the tags and what is around them
    read = 0
    for end in [*range(0, len(page), len(page) // 30), *range(tags - 500, tags + 3000, 7)]:
        try:
            item = read_question(page[:end], expected["url"])
        except PageError:
            continue
        read += 1
        assert (item.title, item.tags, item.score) == (expected["title"], expected["tags"], expected["score"])
        assert item.created in (expected["created"], None)
        assert item.body.endswith(expected["ends"])
    assert read > 15


@real
@pytest.mark.parametrize("name", ["listing_2015-08", "listing_2024-10"])
def test_a_real_listing_cut_anywhere_gives_all_of_it_or_an_error(name):
    page, url = saved(name), "https://stackoverflow.com" if "2015" in name else "https://skeptics.stackexchange.com"
    whole = read_listing(page, url)
    for end in range(0, len(page), len(page) // 60):
        try:
            assert read_listing(page[:end], url) == whole
        except PageError:
            assert end < page.index('rel="next"') + 10


# --- small pages, in the old layout (up to about 2018) and the new one

URL = "https://scifi.stackexchange.com/questions/123/who-sings-on-the-hull"
TAGS = """<a href="/questions/tagged/star-songs" class="post-tag" rel="tag">star-songs</a>
<a href="/questions/tagged/short-stories" class="post-tag" rel="tag">short-stories</a>"""
TITLE = '<a href="/questions/123/who-sings" class="question-hyperlink">Who sings on the hull?</a>'
ANSWERS = "".join(f"""<div id="answer-{n}" class="answer"><div class="{css}" itemprop="text"><p>Nobody answers {n}.</p>
<a href="/questions/tagged/wrong-{n}" class="post-tag">wrong-{n}</a></div><span class="vote-count-post">9{n}</span>
<div class="post-signature owner"><div class="user-action-time">answered
<time itemprop="dateCreated" datetime="2001-01-0{n} 00:00:00Z"></time><span class="relativetime" title="2014-01-01 00:00:00Z">
</span></div></div></div>""" for n, css in [(1, "post-text"), (2, "s-prose js-post-body")])
SIDEBAR = """<div id="sidebar"><div class="module sidebar-related">
<a href="/questions/77/x" class="question-hyperlink">Related</a>
<a href="/questions/tagged/wrong-3" class="post-tag">wrong-3</a></div><div id="hot-network-questions"><h4>
<a href="https://cooking.stackexchange.com/questions/88/x">Hot</a></h4></div></div><div id="footer">The end</div>"""
COMMENTS = """<div class="comments"><div class="comment"><span class="comment-copy">See
<a class="post-tag" href="/questions/tagged/wrong-4">wrong-4</a></span>
<span class="relativetime" title="2012-02-02 00:00:00Z">then</span></div></div>"""


def old_page(title=TITLE, body="<p>I heard it.</p>", tags=f'<div class="post-taglist">{TAGS}</div>', extra="") -> str:
    return f"""<!DOCTYPE html><html><head><title>star-songs - Who sings on the hull? - Science Fiction</title></head><body>
<div id="question-header"><h1 itemprop="name">{title}</h1></div><div id="mainbar">
<div class="question" data-questionid="123" id="question"><table><tr><td class="votecell"><div class="vote">
<span class="vote-count-post ">-7</span></div></td><td class="postcell"><div>
<div class="post-text" itemprop="description">{body}</div>{tags}
<table class="fw"><tr><td class="post-signature"><div class="user-action-time"><a href="/posts/123/revisions">edited
<span title="2013-10-21 00:00:00Z" class="relativetime">Oct 21</span></a></div></td><td class="post-signature owner">
<div class="user-action-time">asked <span title="2013-10-20 10:11:12Z" class="relativetime">Oct 20</span></div>
</td></tr></table></div></td></tr><tr><td>{COMMENTS}</td></tr>{extra}</table></div>
<div id="answers">{ANSWERS}</div></div>{SIDEBAR}</body></html>"""


def new_page(title=TITLE, body="<p>I heard it.</p>", tags=f'<div class="post-taglist d-flex">{TAGS}</div>', extra="") -> str:
    return f"""<!DOCTYPE html><html><head><title>star-songs - Who sings on the hull? - Science Fiction</title>
<link rel="canonical" href="https://scifi.stackexchange.com/questions/123/who-sings"></head><body>
<div id="question-header"><h1 itemprop="name" class="fs-headline1">{title}</h1></div>
<div>Asked <time itemprop="dateCreated" datetime="2013-10-20T10:11:12">long ago</time></div>{extra}<div id="mainbar">
<div class="question js-question" data-questionid="123" data-score="5" id="question">
<div class="js-vote-count" itemprop="upvoteCount" data-value="1234">
1k</div><div class="postcell"><div class="s-prose js-post-body" itemprop="text">
{body}
</div><div class="mt24">{tags}</div><div class="js-post-menu">Share</div>{COMMENTS}</div></div>
<div id="answers">{ANSWERS}</div></div>{SIDEBAR}<h1 class="s-modal--header">Feed</h1></body></html>"""


both = pytest.mark.parametrize("page", [old_page, new_page])


def test_an_old_page():
    item = read_question(old_page(), URL)
    assert (item.site, item.id, item.url) == ("scifi", "123", "https://scifi.stackexchange.com/questions/123")
    assert (item.title, item.body) == ("Who sings on the hull?", "<p>I heard it.</p>")
    assert (item.tags, item.score, item.created) == (["star-songs", "short-stories"], -7, 1382263872)


def test_a_new_page():
    item = read_question(new_page(), URL)
    assert (item.title, item.body) == ("Who sings on the hull?", "<p>I heard it.</p>")
    assert (item.tags, item.score, item.created) == (["star-songs", "short-stories"], 1234, 1382263872)


@both
def test_line_ends_of_windows_change_nothing(page):
    body = "<pre>one\n\ntwo</pre>"
    assert read_question(page(body=body).replace("\n", "\r\n"), URL) == read_question(page(body=body), URL)


@both
@pytest.mark.parametrize("tags", [
    f'<div class="post-taglist">{TAGS}</div>',
    f'<div class="post-taglist grid gs4"><div class="grid ps-relative">{TAGS}</div></div>',
    f'<div class="d-flex"><span class="js-post-tag-list-wrapper">{TAGS}</span></div>',
    f"<ul class='ml0 js-post-tag-list-wrapper'><li>{'</li><li>'.join(TAGS.splitlines())}</li></ul>",
    "<div>" + "".join(f"<li class='js-post-tag-list-item'>{tag}</li>" for tag in TAGS.splitlines()) + "</div>",
    f"<ul class='js-post-tag-list-item'><li>{'</li><li>'.join(TAGS.splitlines())}</li></ul>",
    f"<div>{TAGS}</div>",
    f'<div class="post-taglist">{TAGS}{TAGS}</div>',  # each once
    f'<div class="post-taglist">{TAGS}</div>'.replace("post-tag\"", "s-tag post-tag js-tagname\""),
])
def test_tags_are_found_in_whatever_stands_around_them(page, tags):
    assert read_question(page(tags=tags), URL).tags == ["star-songs", "short-stories"]


@pytest.mark.parametrize(("link", "tag"), [
    ('<a class="post-tag" href="/questions/tagged/c%2b%2b">c++</a>', "c++"),
    ('<a class="post-tag" href="/questions/tagged/c%23">c#</a>', "c#"),
    ('<a class="post-tag" href="/questions/tagged/.net">.net</a>', ".net"),
    ('<a class="post-tag" href="/questions/tagged/%d0%bc%d0%b0%d1%81%d1%81%d0%b8%d0%b2">массив</a>', "массив"),
    ('<a class="post-tag" href="/questions/tagged/%e9%85%8d%e5%88%97"></a>', "配列"),
    ('<a class="post-tag" href="/questions/tagged/c%2b%2b"> <img src="x"> </a>', "c++"),
    ('<a class="post-tag moderator-tag" href="/x"><img src="//i.example/t.png" alt="" class="sponsor-tag-img">android</a>',
     "android"),
])
def test_a_tag_is_its_text_or_else_its_address(link, tag):
    assert read_question(new_page(tags=f'<div class="post-taglist">{link}</div>'), URL).tags == [tag]


@both
def test_links_to_tags_in_the_body_are_no_tags(page):
    body = '<p>Is <a href="/questions/tagged/wrong" class="post-tag">wrong</a> a good tag?</p>'
    item = read_question(page(body=body), URL)
    assert (item.tags, item.body) == (["star-songs", "short-stories"], body)


@both
@pytest.mark.parametrize("status", ["closed", "duplicate", "on hold", "migrated", "locked", "protected", "duplicate] [closed",
                                    "cerrada", "закрыт", "重複"])
def test_a_title_loses_its_status(page, status):
    assert read_question(page(title=TITLE.replace("</a>", f" [{status}]</a>")), URL).title == "Who sings on the hull?"


@both
@pytest.mark.parametrize(("heading", "title"), [
    ("Who sings?", "Who sings?"),  # no link
    ('<a class="question-hyperlink" href="/">Why &lt;b&gt; &amp; <i>not</i>\n  <code>i</code>?</a> <button>Ask</button>',
     "Why <b> & not i?"),
    ('<a class="question-hyperlink" href="/">What is [closed] and a[0]?</a>', "What is [closed] and a[0]?"),
])
def test_a_title_is_plain_text(page, heading, title):
    assert read_question(page(title=heading), URL).title == title


def test_a_heading_in_the_body_or_elsewhere_is_not_the_title():
    page = new_page(body="<h1>Not this</h1><p>x</p>").replace("<body>", "<body><h1>Science Fiction</h1>")
    assert read_question(page, URL).title == "Who sings on the hull?"
    assert read_question(page.replace("<div>Asked", "<h1>Tonight only</h1><div>Asked"), URL).title == "Who sings on the hull?"
    bare = page.replace(' itemprop="name" class="fs-headline1"', "").replace('id="question-header"', "")
    assert read_question(bare, URL).title == "Who sings on the hull?"


@both
@pytest.mark.parametrize("notice", [
    '<div class="question-status question-originals-of-duplicate"><p>This question already has an answer here:</p>'
    '<ul><li><a href="/questions/9/x">Noise</a></li></ul></div>',
    '<div class="question-status"><h2>put on hold as off-topic by <a href="/users/1">Noise</a></h2></div>',
    '<aside class="s-notice s-notice__info js-post-notice mb16" role="status"><div><b>This question already has answers here'
    "</b>: Noise</div></aside>",
    '<div class="mb16 js-post-notice">Noise</div>',
    '<table><tr><td class="special-status">Noise</td></tr></table>',
    "<blockquote>\n  <p><strong>Possible Duplicate:</strong><br>\n  <a href='/questions/9'>Noise</a></p>\n</blockquote>\n",
    "<blockquote><p>Possible Duplicates: Noise</p></blockquote><blockquote><p>Possible Duplicate:<br>Noise</p></blockquote>",
    "<div><p>This question already has answers here: Noise</p></div>",
])
def test_a_notice_in_the_body_is_no_part_of_it(page, notice):
    body = read_question(page(body=f"{notice} Once <p>I heard it.</p> twice"), URL).body
    assert "Noise" not in body
    assert body.endswith("Once <p>I heard it.</p> twice")


@both
def test_a_notice_after_the_body_is_no_part_of_it_either(page):
    body = '<p>I heard it.</p><aside class="s-notice js-post-notice"><p>Closed. Noise</p></aside>'
    assert read_question(page(body=body), URL).body == "<p>I heard it.</p>"


@both
@pytest.mark.parametrize("body", [
    "<blockquote><p>Possible? Duplicate it.</p></blockquote><p>Who said so?</p>",
    "<p>Someone wrote:</p><blockquote><p>Possible Duplicate: that one</p></blockquote>",
    "<p>This question already has answers here, but not good ones.</p>",
    "A text first. <blockquote>Possible Duplicate: no</blockquote>",
])
def test_what_the_author_wrote_stays(page, body):
    assert read_question(page(body=body), URL).body == body


@both
def test_a_body_is_as_received(page):
    body = ('Fish &amp; chips &lt; <b title="a&amp;b">salt</b><!-- note --><br><img src="x.png" alt="">'
            "<pre><code>if a &lt; b:\n\n  c\n</code></pre>é")
    assert read_question(page(body=f"\n  {body} \n"), URL).body == body


@both
@pytest.mark.parametrize("body", [
    "<p>I heard <b>it", "<p>I heard it<pre><code>x", "<ul><li>I heard it", "<blockquote>I heard it",
    "<div>I heard it", "<div><div><p>I heard it", "<table><tr><td>I heard it", "I heard <a href='x'>it",
])
def test_an_unclosed_tag_takes_in_no_answer(page, body):
    item = read_question(page(body=body), URL)
    assert item.tags == ["star-songs", "short-stories"]
    assert "I heard" in item.body
    assert not any(text in item.body for text in ("answers", "star-songs", "asked", "Share", "Related", "The end"))


@pytest.mark.parametrize("change", [
    ('class="s-prose js-post-body" itemprop="text"', 'itemprop="text"'),
    ('class="s-prose js-post-body" itemprop="text"', 'class="x js-post-body y"'),
    ('class="s-prose js-post-body" itemprop="text"', 'class="s-prose"'),
    ('class="s-prose js-post-body" itemprop="text"', 'class="post-text"'),
    ('<div class="postcell">', '<meta itemprop="description" content="x"><div>'),
    ('data-questionid="123" data-score="5" id="question"', 'id="question"'),
    ('data-score="5" id="question"', ""),
])
def test_one_mark_of_the_question_and_of_its_body_is_enough(change):
    assert read_question(new_page().replace(*change), URL) == read_question(new_page(), URL)


def test_only_whole_class_names_count():
    page = new_page(body='<p class="no-s-notice-here">x</p>').replace("itemprop", "data-x")
    page = page.replace('<div class="postcell">', '<div class="not-s-prose post-text-before">no</div><div>')
    assert read_question(page, URL).body == '<p class="no-s-notice-here">x</p>'


@pytest.mark.parametrize(("url", "site", "id", "address"), [
    ("https://scifi.stackexchange.com/questions/9", "scifi", "9", "https://scifi.stackexchange.com/questions/9"),
    ("https://www.superuser.com/q/9/8#9", "superuser", "9", "https://superuser.com/questions/9"),
    ("http://127.0.0.1:8000/questions/9/x?y=z", "127.0.0.1:8000", "9", "http://127.0.0.1:8000/questions/9"),
    ("https://ru.stackoverflow.com/a/55", "ru.stackoverflow", "123", "https://ru.stackoverflow.com/questions/123"),
    ("http://web.archive.org/web/2013id_/http://superuser.com/questions/9/x", "superuser", "9", "http://superuser.com/questions/9"),
])
def test_site_and_id_come_from_where_the_browser_ended(url, site, id, address):
    item = read_question(new_page(), url)
    assert (item.site, item.id, item.url) == (site, id, address)


def test_without_an_id_in_the_url_or_the_question_the_canonical_link_has_it():
    page = new_page().replace('data-questionid="123"', "")
    assert read_question(page, "https://scifi.stackexchange.com/a/55").id == "123"
    assert read_question(new_page().replace("canonical", "alternate"), "https://scifi.stackexchange.com/a/55").id == "123"
    with pytest.raises(UnreadablePage, match="no id"):
        read_question(page.replace("canonical", "alternate"), "https://scifi.stackexchange.com/a/55")


def test_a_migrated_question_is_of_the_site_it_came_to():
    notice = """<div class="question-status"><h2>migrated from <a href="https://stackoverflow.com/questions/9">stackoverflow.com</a>
<span title="2012-01-01 00:00:00Z" class="relativetime">Jan 1</span></h2></div>"""
    for page in (old_page(extra=f"<tr><td>{notice}</td></tr>"), new_page(body=f"<p>I heard it.</p>{notice}")):
        item = read_question(page, "https://superuser.com/questions/123/x")
        assert (item.site, item.id, item.created, item.body) == ("superuser", "123", 1382263872, "<p>I heard it.</p>")


@pytest.mark.parametrize(("count", "score"), [
    ('<span class="vote-count-post ">0</span>', 0), ('<span itemprop="upvoteCount"> 12 </span>', 12),
    ('<div class="js-vote-count" data-value="-3">-3</div>', -3), ('<div class="js-vote-count">−3</div>', -3),
    ('<div class="js-vote-count"></div>', None), ("", None), ('<span class="vote-count-post">' + "9" * 5000 + "</span>", None),
])
def test_a_score(count, score):
    page = old_page().replace('<span class="vote-count-post ">-7</span>', count)
    assert read_question(page, URL).score == score


def test_a_score_without_a_count_is_the_one_the_question_is_marked_with():
    assert read_question(new_page().replace("js-vote-count", "").replace("upvoteCount", ""), URL).score == 5


@pytest.mark.parametrize(("change", "created"), [
    (("asked <span", "задан <span"), 1382263872),
    (('<a href="/posts/123/revisions">edited', "edited"), 1382263872),
    (("2013-10-20 10:11:12Z", "2013-10-20 10:11:12Z, License: CC BY-SA 3.0"), 1382263872),
    (("2013-10-20 10:11:12Z", "2013-13-20 10:11:12Z"), None),
    (("2013-10-20 10:11:12Z", "Oct 20"), None),
    (('title="2013-10-20 10:11:12Z" class="relativetime"', ""), None),
    (('<table class="fw">', '<p>active <i title="2015-01-01 00:00:00Z" class="relativetime">x</i></p><table>'), 1382263872),
    (('<span title="2013-10-20 10:11:12Z" class="relativetime">Oct 20</span>', ""), None),
])
def test_the_time_is_that_of_asking(change, created):
    assert read_question(old_page().replace(*change), URL).created == created


def test_an_old_community_wiki_has_its_time_in_the_sidebar():
    info = '<div id="qinfo"><p title="2013-10-20 10:11:12Z">long ago</p><p title="2020-01-01 00:00:00Z">today</p></div>'
    page = old_page().replace("user-action-time", "community-wiki").replace("post-signature", "")
    page = page.replace('<div id="sidebar">', f'<div id="sidebar">{info}')
    assert read_question(page, URL).created == 1382263872


@pytest.mark.parametrize(("page", "missing"), [
    (new_page(tags=""), "no tags"), (old_page(tags=""), "no tags"), (new_page(title=""), "no title"),
    (new_page(body=""), "no body"), (new_page(title="[closed]", tags=""), "no title, no tags"),
    (new_page().replace("itemprop", "x").replace("s-prose js-post-body", ""), "no body"),
    (new_page().replace('id="question"', "").replace("data-questionid", "x"), "no question block"),
    (new_page(body="<blockquote>Possible Duplicate: all of it</blockquote>"), "no body"),
])
def test_what_is_missing_is_said(page, missing):
    with pytest.raises(UnreadablePage, match=missing) as refusal:
        read_question(page, URL)
    assert type(refusal.value) is UnreadablePage


@both
def test_a_page_cut_in_its_body_or_tags_is_refused(page):
    text = page(body="<p>I heard it.</p> <p>It was the hull.</p>")
    first, last = text.index("I heard"), text.index("short-stories</a>") + len("short-stories</a>")
    for end in range(first, last):
        with pytest.raises(UnreadablePage):
            read_question(text[:end], URL)
    assert read_question(text[:last + 20], URL).tags == ["star-songs", "short-stories"]


# --- pages without a question

CHALLENGES = {
    "cloudflare": """<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>
        <div>Enable JavaScript and cookies to continue</div><script>window._cf_chl_opt={cvId:'3'};</script></body></html>""",
    "cloudflare in Spanish": "<title>Un momento…</title><body><script>(function(){window._cf_chl_opt={cvId:'3'}})()</script>",
    "cloudflare, old": """<title>Attention Required! | Cloudflare</title><h1>One more step</h1>
        <form id="challenge-form" action="/cdn-cgi/l/chk_captcha"></form>""",
    "blocked": "<title>Access denied | stackoverflow.com used Cloudflare to restrict access</title><h1>Error 1020</h1>",
    "browser check": '<title>x</title><div class="big cf-browser-verification cf-im-under-attack">Please wait</div>',
    "stack exchange": """<html><head><title>Human verification - Stack Overflow</title></head><body><h1>Human verification</h1>
        <form id="nocaptcha-form" action="/nocaptcha" method="post"><div class="g-recaptcha" data-sitekey="x"></div></form>""",
    "recaptcha": '<html><body><p>Hello</p><div class="row g-recaptcha"></div></body></html>',
    "frame": '<html><body><iframe src="https://www.google.com/recaptcha/api2/anchor?k=1"></iframe></body></html>',
    "turnstile": '<html><body><div class="cf-turnstile"></div></body></html>',
    "words": "<html><body><p>Verifying you are human. This may take a few seconds.</p></body></html>",
    "rate limit": "<html><head><title>Too Many Requests - Stack Exchange</title></head><body><h1>Slow down</h1></body></html>",
}
REMOVALS = {
    "moderation": """<html><head><title>Page not found - Stack Overflow</title></head><body><h1>Page not found</h1>
        <p>This question was <span class="revision-comment">removed from Meta Exchange for reasons of moderation</span>.</p>""",
    "author": "<h1>Sorry</h1><p>This question was voluntarily\n removed by its author.</p><div class='h-captcha'></div>",
    "not found": "<html><head><title>Page Not Found - Super User</title></head><body><p>Sorry.</p></body></html>",
    "heading": "<html><head><title>Super User</title></head><body><h1>Page not found</h1><i class='h-captcha'></i>",
    "Spanish": "<html><head><title>Página no encontrada - Stack Overflow en español</title></head></html>",
}


@pytest.mark.parametrize("page", CHALLENGES.values(), ids=CHALLENGES)
def test_a_challenge_is_known_as_one(page):
    assert is_challenge(page)
    with pytest.raises(ChallengePage, match="human"):
        read_question(page, URL)
    with pytest.raises(ChallengePage):
        read_listing(page, URL)


@pytest.mark.parametrize("page", REMOVALS.values(), ids=REMOVALS)
def test_a_removed_page_is_known_as_one(page):
    with pytest.raises(RemovedPage, match="(?i)not found|moderation|author|no encontrada"):
        read_question(page, URL)
    with pytest.raises(RemovedPage):
        read_listing(page, URL)


def test_a_captcha_for_the_log_in_form_makes_no_challenge():
    assert not is_challenge(REMOVALS["heading"])
    assert not is_challenge(list_page("", pager="<div class='g-recaptcha'></div>"))


@both
def test_a_question_about_captchas_and_removals_is_a_question(page):
    title = TITLE.replace("Who sings", "Human verification: Just a moment... Page not found")
    body = "<p>Voluntarily removed by its author; verify you are human</p><div class='g-recaptcha'></div>"
    text = page(title=title, body=body).replace("<title>star-songs - ", "<title>Just a moment... ")
    text = text.replace("</body>", "<script>window._cf_chl_opt</script></body>")
    assert not is_challenge(text)
    assert read_question(text, URL).title.startswith("Human verification")


@pytest.mark.parametrize("page", [
    "", " ", "hello", '{"items": [{"tags": ["a"]}]}', "\x00\x01\x02" * 99, "<html></html>", "<!-- x", "<?xml", "b'<", "\ud800",
])
def test_other_texts_are_unreadable(page):
    assert not is_challenge(page)
    for read in (read_question, read_listing):
        with pytest.raises(UnreadablePage):
            read(page, URL)


@pytest.mark.parametrize("url", [
    "", "questions/1", "ftp://a.b/questions/1", "http://[/questions/1", "http:///questions/1", "https://a\ud800.b/q/1",
])
def test_an_address_that_is_none_is_refused(url):
    for read, page in ((read_question, new_page()), (read_listing, LIST)):
        with pytest.raises(UnreadablePage, match="address"):
            read(page, url)


# --- lists

LIST_URL = "https://scifi.stackexchange.com/questions?tab=newest&page=2"
OLD_ROW = """<div class="question-summary" id="question-summary-{id}"><a href="/questions/{id}/x">5</a><div class="summary">
<h3><a href="/questions/{id}/who" class="question-hyperlink">Who? [closed]</a></h3><div class="excerpt">no</div>
<a href="/questions/tagged/a" class="post-tag">a</a><a href="/users/5/x">X</a></div></div>"""
NEW_ROW = """<div id="question-summary-{id}" class="s-post-summary    js-post-summary"><div class="s-post-summary--content">
<h3 class="s-post-summary--content-title"><a href="/questions/{id}/who" class="s-link">Who?</a></h3>
<a href="/questions/tagged/a" class="s-tag post-tag">a</a></div></div>"""
PLAIN_ROW = '<li><p><a href="/questions/{id}/who">Who?</a> <a href="/users/5/x">X</a></p></li>'
HOME_ROW = """<div class="question-summary narrow"><h3><a href="/questions/{id}/who" class="question-hyperlink">Who?</a></h3>
<a href="/questions/{id}/who/?lastactivity" class="started-link">asked</a></div>"""
NEXT = '<div class="pager"><a href="/questions?page=2">2</a><a href="/questions?page=3" rel="nofollow next">next</a></div>'


def list_page(rows: str, pager: str = NEXT, extra: str = "") -> str:
    return f"""<!DOCTYPE html><html><head><title>Newest Questions</title></head><body><div id="mainbar"><h1>All</h1>{extra}
<div id="questions">{rows}</div>{pager}</div>{SIDEBAR}</body></html>"""


LIST = list_page(OLD_ROW.format(id=3) + OLD_ROW.format(id=1) + OLD_ROW.format(id=2) + OLD_ROW.format(id=3))


@pytest.mark.parametrize("row", [OLD_ROW, NEW_ROW, PLAIN_ROW, HOME_ROW], ids=["old", "new", "plain", "home"])
@pytest.mark.parametrize("host", ["https://scifi.stackexchange.com", "http://127.0.0.1:8000"])
def test_a_list_gives_each_question_once_in_order(row, host):
    page = list_page("".join(row.format(id=id) for id in (3, 1, 2, 3)))
    listing = read_listing(page, f"{host}/questions?page=1")
    assert listing.urls == [f"{host}/questions/{id}" for id in (3, 1, 2)]
    assert listing.has_next


@pytest.mark.parametrize("title", ['<h3><a href="/questions/1/x" class="s-link">Who?</a></h3>',
                                   '<div><a href="/questions/1/x" class="question-hyperlink">Who?</a></div>'])
def test_a_title_link_goes_before_other_links_to_questions(title):
    row = f'<div class="s-post-summary"><p>Like <a href="/questions/9/y">that one</a>?</p>{title}</div>'
    assert read_listing(list_page(row), LIST_URL).urls == ["https://scifi.stackexchange.com/questions/1"]


def test_a_list_without_a_container_is_read_by_its_title_links():
    page = LIST.replace('id="questions"', "").replace("question-summary", "row")
    assert read_listing(page, LIST_URL) == read_listing(LIST, LIST_URL)


@pytest.mark.parametrize("link", [
    "https://cooking.stackexchange.com/questions/9/x", "https://ads.example/questions/9", "/questions/ask", "/q",
    "/questions/tagged/9", "http://[/questions/9", "javascript:void(9)", "#9", "", "mailto:questions/9",
])
def test_a_link_elsewhere_is_no_question(link):
    row = OLD_ROW.format(id=1).replace("/questions/1/who", link)
    assert read_listing(list_page(row.replace("/questions/1/x", link) + OLD_ROW.format(id=2)), LIST_URL).urls == [
        "https://scifi.stackexchange.com/questions/2"]


@pytest.mark.parametrize("extra", [
    '<div class="everyonelovesstackoverflow"><h3><a href="/questions/9/ad" class="question-hyperlink">Ad</a></h3></div>',
    '<div class="related"><h4><a href="/questions/9/x" class="question-hyperlink">Related</a></h4></div>',
])
def test_only_the_list_counts(extra):
    for page in (list_page(NEW_ROW.format(id=1), extra=extra), list_page(NEW_ROW.format(id=1) + extra)):
        assert read_listing(page, LIST_URL).urls == ["https://scifi.stackexchange.com/questions/1"]


def test_the_links_of_an_archived_list_lead_to_the_site():
    rows = OLD_ROW.format(id=1).replace('"/questions', '"/web/20150801000000/http://scifi.stackexchange.com/questions')
    rows += rows.replace("/1/", "/2/").replace("/web", "http://web.archive.org/web")
    site = "http://scifi.stackexchange.com/questions"
    for url in (site, f"http://web.archive.org/web/2015id_/{site}"):
        for links in (rows, OLD_ROW.format(id=1) + OLD_ROW.format(id=2)):
            assert read_listing(list_page(links), url).urls == [f"{site}/1", f"{site}/2"]


def test_the_last_page_has_no_next():
    page = list_page(OLD_ROW.format(id=1), pager='<div class="pager"><a href="?page=1" rel="prev">prev</a></div>')
    assert not read_listing(page, LIST_URL).has_next


@pytest.mark.parametrize("page", [
    list_page("", pager=""), list_page(" \n", pager='<a href="?page=7" rel="prev">prev</a>'),
    "<html><body><div id='mainbar'><p>There are no questions tagged so.</p></div></body></html>",
    "<html><body><h1>Search</h1><div>0 results</div></body></html>",
    "<html><body><p>We couldn't find anything.</p><p>We couldn't find any questions.</p></body></html>",
])
def test_an_empty_last_page_is_an_empty_list(page):
    listing = read_listing(page, LIST_URL)
    assert (listing.urls, listing.has_next) == ([], False)


@pytest.mark.parametrize("page", [
    "<html><body><p>Hello</p></body></html>", list_page(""), list_page("<p>Oops</p>", pager=""), new_page(), old_page(),
    "<html><body>230 questions</body></html>", "<html><body>1,000 questions</body></html>",
    '<p>Newest questions</p><div id="questions">',
])
def test_a_page_that_is_no_list_is_unreadable(page):
    with pytest.raises(UnreadablePage):
        read_listing(page, LIST_URL)


def test_a_list_cut_before_its_pager_does_not_pass_for_the_last_page():
    for end in range(LIST.index("question-summary"), LIST.index('rel="nofollow next')):
        with pytest.raises(UnreadablePage):
            read_listing(LIST[:end], LIST_URL)


# --- damage

def outcomes(page: str) -> list[str]:
    """What each reader makes of a page: anything but a result or a PageError, in one line, fails the test."""
    results = [f"{is_challenge(page)}"]
    for read in (read_question, read_listing):
        try:
            results.append(type(read(page, URL)).__name__)
        except PageError as error:
            results.append(f"{type(error).__name__}: {error}")
    assert not any("\n" in result for result in results)
    return results


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("page", [old_page(), new_page(), LIST], ids=["old", "new", "list"])
def test_a_damaged_page_is_read_or_refused(page, seed):
    chance, seen = random.Random(seed), set()
    pieces = [b"<", b">", b'"', b"'", b"<!--", b"</div>", b"</a>", b"\0", b"&#0;", b"<table>", b"\xed\xa0\x80", b"http://["]
    for _ in range(60):
        data = bytearray(page.encode())
        for _ in range(chance.randint(1, 20)):
            place, length = chance.randrange(len(data)), chance.randint(1, 60)
            change = chance.randrange(4)
            if change == 0:
                del data[place:place + length]
            elif change == 1:
                data[place] = chance.randrange(256)
            else:
                data[place:place] = data[place - length:place] if change == 2 else chance.choice(pieces)
        end = chance.choice([len(data), chance.randrange(len(data))])
        seen.update(outcomes(data[:end].decode("utf8", "surrogateescape")))  # leaves lone surrogates
    assert {"Item", "Listing"} & seen
    assert any("truncated" in result for result in seen)


def test_odd_characters_survive_or_are_replaced():
    item = read_question(new_page(body="a\x00b\ud800c é🚀 &#0;&#xD800;", title="Who\x00 \udfffsings?"), URL)
    assert (item.body.startswith("a"), item.title) == (True, "Who\ufffd ?sings?")
    (item.title + item.body).encode()


@pytest.mark.parametrize("head", ['<?xml version="1.0" encoding="utf-16"?>', '<meta charset="latin-1">', "\ufeff"])
def test_a_declared_encoding_does_not_matter(head):
    assert read_question(head + new_page(body="é"), URL).body == "é"


@pytest.mark.parametrize("page", [
    "<div>" * 100_000, "<a href=/questions/1>" * 100_000, "<div class='question-summary'>" * 100_000, "<!--" * 100_000,
    new_page(body="<div>" * 100_000), new_page(body="<i>" * 1500 + "x" + "</i>" * 1500), new_page(body="[closed]" * 100_000),
    new_page(title="[closed]" * 10_000), new_page(title="[" * 100_000), new_page(body="<div class=s-notice>x</div>y" * 20_000),
    new_page(tags=TAGS * 30_000), "<h1>x</h1>" * 50_000 + new_page(), LIST.replace("<h3>", "<h3>" * 1500), "no " * 200_000,
    "removed from " * 100_000, "b'<" + "\\" * 100_000,
], ids=range(16))
def test_a_hostile_page_takes_no_longer_than_a_long_one(page):
    start = time.perf_counter()
    outcomes(page)
    assert time.perf_counter() - start < 15


def test_ten_megabytes_are_read():
    start = time.perf_counter()
    body = "<p>Nobody sings on the hull, and nobody listens.</p>\n" * 200_000
    assert read_question(new_page(body=body), URL).body == body.strip()
    assert time.perf_counter() - start < 30
