"""Names and addresses of Stack Exchange: site ↔ host, question id ↔ URL. What a page or an answer holds is read elsewhere."""

import re
from urllib.parse import urlsplit

from tagwright.errors import TagwrightError

SUFFIX = ".stackexchange.com"
OWN_NAMES = {"stackoverflow", "superuser", "serverfault", "askubuntu", "stackapps"}  # at <name>.com, es.<name>.com
NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*(:\d{1,5})?", re.IGNORECASE)
MAX_ID = 2**31 - 1  # the API refuses a whole call for one greater id
QUESTION_PATH = re.compile(r"^/(?:questions|q)/(\d{1,18})(?:/|$)")


def split_site(given: str) -> tuple[str, str]:
    """A site's name, as the API spells it, and its base address, from a name, a host or a URL.

    >>> split_site("scifi"), split_site("https://superuser.com/questions")
    (('scifi', 'https://scifi.stackexchange.com'), ('superuser', 'https://superuser.com'))
    >>> split_site("http://127.0.0.1:8000")  # a stand-in, or a mirror
    ('127.0.0.1:8000', 'http://127.0.0.1:8000')

    Raises TagwrightError for what is none of these.
    """
    scheme, host, _ = split_url(given if "://" in given else f"https://{given}")
    if scheme not in ("http", "https") or not NAME.fullmatch(host):
        raise TagwrightError(f"--site {given}: not a site's name (scifi), host (scifi.stackexchange.com) or address")
    site = site_of(host)
    if "://" in given:
        return site, f"{scheme}://{host}"
    return site, f"https://{host_of(site)}"


def site_of(host: str) -> str:
    """The API's name of the site at a host.

    >>> site_of("scifi.stackexchange.com"), site_of("es.stackoverflow.com"), site_of("mathoverflow.net")
    ('scifi', 'es.stackoverflow', 'mathoverflow.net')
    """
    host = host.lower().removeprefix("www.")
    if host == f"meta{SUFFIX}":
        return "meta.stackexchange"
    name = host.removesuffix(".com")
    return name if name.rpartition(".")[2] in OWN_NAMES else host.removesuffix(SUFFIX)


def host_of(site: str) -> str:
    """The host of a site: scifi → scifi.stackexchange.com, meta.superuser → meta.superuser.com."""
    if site.rpartition(".")[2] in OWN_NAMES or site == "meta.stackexchange":
        return f"{site}.com"
    is_name = "." not in site.removesuffix(".meta") and ":" not in site
    return f"{site}{SUFFIX}" if is_name else site


def question_id(url: str) -> str | None:
    """The id in a question's URL (`…/questions/123/slug`, `…/q/123`), or None where it is no question's."""
    match = QUESTION_PATH.match(split_url(url.strip())[2])
    return match[1] if match and 0 < int(match[1]) <= MAX_ID else None


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, host (in lower case, without `www.`) and path of an address; empty texts for what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as http://[
        return "", "", ""
    return parts.scheme, parts.netloc.lower().removeprefix("www."), parts.path


def question_url(base: str, id: str) -> str:
    """The short address of a question, the same for every collector: `<base>/questions/<id>`."""
    return f"{base}/questions/{id}"
