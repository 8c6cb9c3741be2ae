"""Names and addresses of Stack Exchange's sites."""

import pytest

from tagwright.errors import TagwrightError
from tagwright.stackexchange import host_of, question_id, site_of, split_site

SITES = {
    "scifi.stackexchange.com": "scifi", "scifi.meta.stackexchange.com": "scifi.meta", "stackoverflow.com": "stackoverflow",
    "es.stackoverflow.com": "es.stackoverflow", "meta.superuser.com": "meta.superuser", "mathoverflow.net": "mathoverflow.net",
    "meta.stackexchange.com": "meta.stackexchange", "stackapps.com": "stackapps", "127.0.0.1:8099": "127.0.0.1:8099",
}


@pytest.mark.parametrize(("host", "site"), SITES.items())
def test_a_host_and_its_site_lead_to_each_other(host, site):
    assert site_of(host) == site
    assert host_of(site) == host


@pytest.mark.parametrize(("given", "site", "base"), [
    ("scifi", "scifi", "https://scifi.stackexchange.com"),
    ("SciFi.StackExchange.com", "scifi", "https://scifi.stackexchange.com"),
    ("https://www.stackoverflow.com/questions", "stackoverflow", "https://stackoverflow.com"),
    ("http://127.0.0.1:8099", "127.0.0.1:8099", "http://127.0.0.1:8099"),
])
def test_a_site_may_be_given_as_name_host_or_address(given, site, base):
    assert split_site(given) == (site, base)


@pytest.mark.parametrize("given", ["", "two words", "ftp://scifi.stackexchange.com", "https://", "scifi'; DROP TABLE items",
                                   "http://[x", "http://a..b"])
def test_what_is_no_site_is_refused(given):
    with pytest.raises(TagwrightError, match="--site"):
        split_site(given)


@pytest.mark.parametrize(("url", "id"), [
    ("https://scifi.stackexchange.com/questions/12/who-is-it", "12"), ("https://scifi.stackexchange.com/q/12/5", "12"),
    ("/questions/12?noredirect=1", "12"), ("https://scifi.stackexchange.com/questions/tagged/12", None),
    ("https://scifi.stackexchange.com/a/12", None), ("https://scifi.stackexchange.com/questions/12x", None), ("", None),
    ("http://[x/questions/2", None), ("https://scifi.stackexchange.com/q/2147483648", None),
])
def test_a_questions_address_holds_its_id(url, id):
    assert question_id(url) == id
