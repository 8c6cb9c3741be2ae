"""HTML to text, tidying, templates and label cells."""

import math
import time

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagwright.text import MAX_LABEL_CELL, compose, html_to_text, mend_html, parse_labels, tidy


@pytest.mark.parametrize(("markup", "text"), [
    ("<p>One.</p><p>Two.</p>", "One.\n\nTwo."),
    ("<h1>Title</h1>Body", "Title\n\nBody"),
    ("<blockquote>Quoted</blockquote>after", "Quoted\n\nafter"),
    ("<p>One.</p>\n\n\n<p></p><div></div><p>Two.</p>", "One.\n\nTwo."),
])
def test_paragraphs_are_parted_by_one_blank_line(markup, text):
    assert html_to_text(markup) == text


@pytest.mark.parametrize(("markup", "text"), [
    ("Salt<br>Pepper<br/>Oil<BR />Water", "Salt\nPepper\nOil\nWater"),
    ("<ul><li>Salt</li><li>Pepper</li></ul>", "Salt\nPepper"),
    ("<ul><li>Salt<li>Pepper</ul>", "Salt\nPepper"),
])
def test_br_and_li_end_a_line(markup, text):
    assert html_to_text(markup) == text


@pytest.mark.parametrize(("markup", "text"), [
    ("Fish &amp; chips", "Fish & chips"),
    ("&lt;b&gt;", "<b>"),
    ("caf&eacute; &#233; &#xe9;", "café é é"),
    ("isn&amp;#39;t", "isn&#39;t"),
    ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
    ("&amp;amp;amp;", "&amp;amp;"),
    ("AT&T &bogus;", "AT&T &bogus;"),
])
def test_entities_are_decoded_exactly_once(markup, text):
    assert html_to_text(markup) == text


@pytest.mark.parametrize("tag", ["script", "style", "template", "SCRIPT"])
def test_hidden_elements_leave_no_text(tag):
    assert html_to_text(f"before <{tag}>x = 1</{tag}> after") == "before after"


def test_a_stray_end_of_a_hidden_element_hides_nothing():
    assert html_to_text("</script>a</style>b") == "ab"


@pytest.mark.parametrize(("markup", "text"), [
    ("<p>One<p>Two", "One\n\nTwo"),
    ("<b>bold <i>both", "bold both"),
    ("</div>text</p>", "text"),
    ("an <a href='x>y'>open link", "an open link"),
])
def test_unclosed_and_unopened_tags_lose_no_text(markup, text):
    assert html_to_text(markup) == text


def test_inline_tags_do_not_part_a_word():
    assert html_to_text("<b>W</b>ater is H<sub>2</sub>O") == "Water is H2O"


def test_table_cells_are_parted():
    assert html_to_text("<table><tr><th>Ship</th><td>Rocinante</td></tr></table>").split() == ["Ship", "Rocinante"]


def test_pre_keeps_its_lines_and_other_elements_do_not():
    assert html_to_text("<pre>one\ntwo\n\nthree</pre>") == "one\ntwo\n\nthree"
    assert html_to_text("<p>one\ntwo</p>") == "one two"


def test_no_break_spaces_become_spaces():
    assert html_to_text("a&nbsp;&nbsp;b\u00a0c") == "a b c"


@pytest.mark.parametrize("text", ["a < b", "a<5 and b>3", "if x <3 y", "ends with <", "1 << 2 >> 3", "<3"])
def test_a_less_than_sign_in_text_survives(text):
    assert html_to_text(text) == text


@pytest.mark.parametrize("markup", ["<![x y[ z", "a <![>", "<![<![", "<!doctype", "<!-- open", "<?php", "<![CDATA[x]]>", "</"])
def test_broken_declarations_raise_nothing(markup):
    assert isinstance(html_to_text(f"text {markup}"), str)


def test_a_hostile_page_takes_no_longer_than_a_long_one():
    start = time.perf_counter()
    html_to_text("<a " * 8_000)  # 24 kB of tags that never end
    assert time.perf_counter() - start < 1


REUTERS = ('Intel Corp. &lt;A HREF="http://www.investor.reuters.com/FullQuote.aspx?ticker=INTC.O '
           'target=/stocks/quickinfo/fullquote"&gt;INTC.O&lt;/A&gt; on  Thursday ')


@pytest.mark.parametrize(("raw", "text"), [  # as they stand in AG's corpus
    ("America #39;s top diplomat", "America's top diplomat"),
    ("has avoided the  #39;Tiger Slump #39; debate - until", "has avoided the 'Tiger Slump' debate - until"),
    (" #39;Ethnic violence #39; in China region", "'Ethnic violence' in China region"),
    ("#39;We #39;re not a company", "'We're not a company"),
    ("is a  quot;work in progress, quot; GAO says", 'is a "work in progress," GAO says'),
    ("purchase of AT amp;T Wireless", "purchase of AT&T Wireless"),
    ("Drugmaker Merck  amp; Co., under", "Drugmaker Merck & Co., under"),
    ("AT #38;T and Merck  #038; Co.", "AT&T and Merck & Co."),
    ("World News  gt; Dhaka, Dec 10", "World News > Dhaka, Dec 10"),
    ("competing for the  #36;10 million prize", "competing for the $10 million prize"),
    ("will spend US #36;3 billion", "will spend US$3 billion"),
    ("mark on oil, to \\$47; US\\$300 million", "mark on oil, to $47; US$300 million"),
    ("a second\\team of rocketeers for\\privately funded", "a second team of rocketeers for privately funded"),
    ("from the site:\\\\$5 a month", "from the site: $5 a month"),
    ("on Wednesday.\\\\Claria, which", "on Wednesday. Claria, which"),
    ("It seems like a cool idea  #151; sunglasses", "It seems like a cool idea — sunglasses"),
    ("Apple #146;s iLife  #145;04, #148; he", "Apple’s iLife ‘04,” he"),
    ("BAGHDAD  #8212; Militants  #x2014; said", "BAGHDAD — Militants — said"),
    ("Bush rsquo;s election mdash;what   hellip;. more", "Bush’s election—what …. more"),
    ("science programs nbsp;could", "science programs could"),
    ("the Elys eacute;e and Ch #225;vez", "the Elysée and Chávez"),
    ("for troops to &lt;b&gt;...&lt;/b&gt;", "for troops to ..."),
    (REUTERS, "Intel Corp. INTC.O on Thursday"),
    ('&lt;p&gt;\\&lt;/p&gt;&lt;p&gt; PARIS (Reuters)&lt;/p&gt;', "PARIS (Reuters)"),
    ('frontier.\\&lt;BR&gt;&lt;FONT face="verdana"\\ color="#666666"&gt;&lt;B&gt;-The Post&lt;/B&gt;&lt;/FONT&gt;',
     "frontier.\n-The Post"),
])
def test_damaged_html_is_mended(raw, text):
    assert html_to_text(mend_html(raw)) == text


@pytest.mark.parametrize("text", [
    "drop by 18 percent to 35 percent; a host of other chips", "Now #1; then #2", "color #666666", "AT&T; R&D",
    "Microsoft Corp. said; it will", "1 < 2", "x#39;", "Elizabeth acute; pain",
])
def test_what_is_not_damaged_stays(text):
    assert mend_html(text) == text


def test_a_ticker_in_brackets_is_no_tag():
    assert html_to_text(mend_html("Dell Inc. &lt;DELL.O&gt;, and &lt;A.N&gt;")) == "Dell Inc. <DELL.O>, and <A.N>"


@pytest.mark.parametrize("hostile", ["&lt;a " * 20_000, " #39" * 50_000, "\\" * 200_000, "&lt;p" + " " * 100_000])
def test_mending_takes_no_longer_than_the_text(hostile):
    start = time.process_time()
    mend_html(hostile)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
def test_tidy_knows_every_line_end(ending):
    assert tidy(f"a{ending}b{ending}{ending}{ending}{ending}c") == "a\nb\n\nc"


@pytest.mark.parametrize("char", ["\x00", "\x07", "\x0b", "\x1b", "\x7f", "\x9f", "\ud800"])
def test_tidy_drops_control_characters_and_lone_surrogates(char):
    assert tidy(f"a{char}b") == "a b"


def test_tidy_keeps_characters_beyond_the_basic_plane():
    assert tidy("a 🚀 𝒳 b") == "a 🚀 𝒳 b"


def test_tidy_composes_accents():
    assert tidy("cafe\u0301") == "caf\u00e9"


def test_tidy_collapses_spaces_and_strips():
    assert tidy("  a \t b\u2003c \n d ") == "a b c\nd"


@pytest.mark.parametrize(("fields", "text"), [
    ({"title": "Who is Q?", "body": "In short."}, "Who is Q?\n\nIn short."),
    ({"title": "Who is Q?", "body": ""}, "Who is Q?"),
    ({"title": "", "body": "In short."}, "In short."),
    ({"title": "{body}", "body": "{0}"}, "{body}\n\n{0}"),
])
def test_compose_fills_the_template_once(fields, text):
    assert compose("{title}\n\n{body}", fields) == text


@pytest.mark.parametrize(("cell", "labels"), [
    ('["time travel", "robots"]', ["time travel", "robots"]),
    ("['time travel', 'robots']", ["time travel", "robots"]),
    ("('a', 'b')", ["a", "b"]),
    ("{'b', 'a'}", ["a", "b"]),
    ("<time-travel><robots>", ["time-travel", "robots"]),
    ("<a> <b>", ["a", "b"]),
    ("a|b", ["a", "b"]),
    ("|a|b|", ["a", "b"]),
    ("a, b c,d", ["a", "b c", "d"]),
    ("a b  c", ["a", "b", "c"]),
    ("robots", ["robots"]),
    ("  robots \n", ["robots"]),
    ("[]", []),
    ("['a', 'a', ' ', 'b']", ["a", "b"]),
    ("['it\\'s', \"a,b\"]", ["it's", "a,b"]),
])
def test_auto_reads_every_written_form(cell, labels):
    assert parse_labels(cell) == labels


@pytest.mark.parametrize(("form", "cell", "labels"), [
    ("json", '["a", "b"]', ["a", "b"]),
    ("python", "['a', 'b']", ["a", "b"]),
    ("angle", "<a><b>", ["a", "b"]),
    ("pipe", "a, b|c", ["a, b", "c"]),
    ("comma", "a|b, c", ["a|b", "c"]),
    ("space", "a,b c", ["a,b", "c"]),
    ("single", "Science fiction, hard", ["Science fiction, hard"]),
    ("paths", " Fiction » Horror; Cooking, Food » Baking ;", ["Fiction » Horror", "Cooking, Food » Baking"]),
    ("paths", "Fiction &raquo; Thriller &amp; suspense; Poetry", ["Fiction » Thriller & suspense", "Poetry"]),
    ("paths", '["Fiction » Horror", "Poetry | Verse"]', ["Fiction » Horror", "Poetry | Verse"]),
])
def test_a_named_form_is_used_whatever_else_the_cell_holds(form, cell, labels):
    assert parse_labels(cell, form) == labels


@pytest.mark.parametrize("cell", [None, math.nan, float("nan"), "", "  \n", []])
@pytest.mark.parametrize("form", ["auto", "json", "python", "angle", "pipe", "single", "paths"])
def test_an_empty_cell_has_no_labels(cell, form):
    assert parse_labels(cell, form) == []


@pytest.mark.parametrize(("cell", "labels"), [
    (["a", "b"], ["a", "b"]), (("a", "b"), ["a", "b"]), ({"b", "a"}, ["a", "b"]), (frozenset("a"), ["a"]),
    ([" a ", "a", ""], ["a"]), (["a\u00a0b", "e\u0301"], ["a b", "é"]),
])
def test_lists_are_taken_as_they_are_tidied_and_each_label_once(cell, labels):
    assert parse_labels(cell) == labels


def test_lists_from_parquet_are_read(tmp_path):
    pq.write_table(pa.table({"tags": [["a", "b"], [], None]}), tmp_path / "rows.parquet")
    assert [parse_labels(cell) for cell in pq.read_table(tmp_path / "rows.parquet")["tags"].to_pylist()] == [["a", "b"], [], []]


def test_arrays_from_a_data_frame_are_read(tmp_path):
    pq.write_table(pa.table({"tags": [["a", "b"], ["c"], []]}), tmp_path / "rows.parquet")
    assert [parse_labels(cell) for cell in pd.read_parquet(tmp_path / "rows.parquet")["tags"]] == [["a", "b"], ["c"], []]


def test_code_in_a_cell_is_refused_and_never_run(tmp_path):
    touched = tmp_path / "touched"
    code = f"__import__('pathlib').Path({str(touched)!r}).touch()"
    for cell, form in [(code, "python"), (code, "json"), (f"[{code}]", "auto"), (f"['a'] + [{code}]", "python")]:
        with pytest.raises(ValueError, match="neither JSON nor|Expecting value"):
            parse_labels(cell, form)
    parse_labels(code)  # without brackets it is only an odd label
    assert not touched.exists()


def test_code_without_brackets_is_plain_text():
    assert parse_labels("__import__('os').system('x')") == ["__import__('os').system('x')"]


@pytest.mark.parametrize("cell", [
    "['a',", "['a'", "[a, b]", "('a'", "{'a': 1}", '{"a": ["b"]}', "<a><b", "<a>b", "<>",
    "[['a']]", [["a"]], '["a", ["b"]]', "[1, 2]", '["a", 1]', "[null]", "[true]", 5, 1.5, True, {"a": 1}, ["a", None],
    "x" * 30_000, "[" * 10_000, "(" * 10_000, "{" * 10_000, "[" * 9_000 + "]" * 9_000, "[" + "-" * 9_000 + "1]",
    "[" + "1" * 5_000 + "]",
], ids=lambda cell: repr(cell)[:20])
def test_what_is_no_label_list_is_refused(cell):
    with pytest.raises(ValueError, match="."):
        parse_labels(cell)


@pytest.mark.parametrize("form", ["json", "python", "angle", "auto"])
def test_deep_nesting_is_refused_in_every_form(form):
    with pytest.raises(ValueError, match="."):
        parse_labels("[" * 10_000 if form != "angle" else "<" * 10_000, form)


def test_a_refusal_is_short_however_long_the_cell():
    for cell in ("x" * 30_000, "['" + "x" * (MAX_LABEL_CELL - 10), "<" + "x" * (MAX_LABEL_CELL - 10)):
        with pytest.raises(ValueError, match=".") as refusal:
            parse_labels(cell)
        assert len(str(refusal.value)) < 150
