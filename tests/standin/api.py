"""A stand-in for version 2.3 of the Stack Exchange API: questions by date or id, its wrapper, its quota and its throttles."""

import json
import math
import re
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial

from .questions import Question, escape
from .server import COMMON_FAULTS, Make, Reply, StandIn, notice, slow

JSON = "application/json; charset=utf-8"
METHOD = re.compile(r"/2\.3/questions(?:/([\d;]+))?")
PAGES_WITHOUT_KEY = 25
DAY = 86_400
SORTS: dict[str, Callable[[Question], int]] = {
    "activity": lambda question: question.active,
    "creation": lambda question: question.created,
    "votes": lambda question: question.score,
}
ERRORS = {
    400: "bad_parameter",
    403: "access_denied",
    404: "no_method",
    500: "internal_error",
    502: "throttle_violation",
    503: "temporarily_unavailable",
}


class _Refused(Exception):
    """Ends a request in one of the API's own errors: its number, and its message."""


def _error(id: int, message: str, name: str | None = None) -> Reply:
    """The API's own errors, which all come with HTTP status 400."""
    error = {"error_id": id, "error_message": message, "error_name": name or ERRORS[id]}
    return Reply(json.dumps(error).encode(), 400, JSON)


def _own_error(make: Make, error_id: int = 500, error_name: str | None = None) -> Reply:
    make()  # it was the API itself that answered, so the call has used up quota
    return _error(error_id, "an error occurred", error_name)


def _wrong_types(make: Make, items: object = None) -> Reply:
    reply = make()
    wrapper = json.loads(reply.body) | {"items": {"0": "not a list"} if items is None else items}
    return replace(reply, body=json.dumps(wrapper).encode(), told=None)


@dataclass(eq=False, repr=False)
class StandInApi(StandIn):
    """Serves `questions` as those of one `site`; all calls count as one client's.

    A gateway's errors, pages and dropped connections use no quota, and neither do throttled calls; every other answer
    uses one call. More than `rate_limit` calls within a second (None: no limit) bar the client for `ban` seconds.
    Each `backoff_every`-th answer asks for `backoff_seconds` of rest from its method. `violations` lists what broke the
    rules, as (kind, time.monotonic()): "rate", "ban" (called while barred) and "backoff".
    """

    faults = COMMON_FAULTS | {
        "timeout": slow,
        "502html": lambda make: notice(502, "Bad gateway"),
        "html": lambda make: notice(200, "Please sign in to this network"),
        "malformed": lambda make: replace(make(), body=b'{"items":[{"question_id":', told=None),
        "wrong_types": _wrong_types,
        "error400": _own_error,
    }

    questions: Sequence[Question]
    site: str = "scifi"
    _: KW_ONLY
    quota: int = 300
    quota_with_key: int = 10_000
    rate_limit: int | None = 30
    ban: float = 2.0
    backoff_every: int | None = None
    backoff_seconds: int = 1

    def __post_init__(self):
        super().__post_init__()
        self.violations: list[tuple[str, float]] = []
        self.reset_quota()
        self._oldest = sorted(self.questions, key=lambda question: (question.created, question.id))
        self._recent: deque[float] = deque()
        self._barred_until = 0.0
        self._rest_until: dict[str, float] = {}
        self._answered = 0

    @property
    def url(self) -> str:
        return f"{super().url}/2.3"

    @property
    def calls(self) -> int:
        """How many requests reached it, those that failed or were refused included."""
        return len(self.log)

    def reset_quota(self) -> None:
        """The next day begins."""
        self.quota_used = 0
        self._day_ends = time.monotonic() + DAY

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        match = METHOD.fullmatch(path)
        method = "questions/{ids}" if match and match[1] else "questions"
        quota = self.quota_with_key if "key" in params else self.quota
        try:
            with self._lock:
                self._admit(method, quota)
                wrapper = {"quota_max": quota, "quota_remaining": quota - self.quota_used}
            if not match:
                raise _Refused(404, "no method found with this name")
            items, has_more = self._page(match[1], params)
        except _Refused as refused:
            return _error(*refused.args)
        told = None
        with self._lock:
            self._answered += 1
            if self.backoff_every and self._answered % self.backoff_every == 0:
                wrapper["backoff"] = self.backoff_seconds
                told = partial(self._rest, method)
        body = json.dumps({"items": items, "has_more": has_more} | wrapper, ensure_ascii=False, separators=(",", ":"))
        return Reply(body.encode(), type=JSON, told=told)

    def _rest(self, method: str) -> None:
        self._rest_until[method] = time.monotonic() + self.backoff_seconds

    def _admit(self, method: str, quota: int) -> None:
        """Counts a call, or refuses it."""
        now = time.monotonic()
        if now < self._barred_until:
            self.violations.append(("ban", now))
            raise _Refused(502, _wait(self._barred_until - now))
        self._recent.append(now)
        while self._recent[0] <= now - 1:
            self._recent.popleft()
        if self.rate_limit is not None and len(self._recent) > self.rate_limit:
            self.violations.append(("rate", now))
            self._barred_until = now + self.ban
            raise _Refused(502, _wait(self.ban))
        if now < self._rest_until.get(method, 0.0):
            self.violations.append(("backoff", now))
            raise _Refused(502, "Violation of backoff parameter")
        if self.quota_used >= quota:
            raise _Refused(502, _wait(self._day_ends - now))
        self.quota_used += 1

    def _page(self, ids: str | None, params: dict[str, str]) -> tuple[list[dict], bool]:
        """The items asked for, and whether more follow."""
        if params.get("site") != self.site:
            raise _Refused(400, f"No site found for name `{params['site']}`" if "site" in params else "site is required")
        page, size = _number(params, "page", 1), _number(params, "pagesize", 30)
        sort, order, fields = params.get("sort", "activity"), params.get("order", "desc"), params.get("filter", "default")
        for name, right in {
            "page": page >= 1,
            "pagesize": 0 <= size <= 100,
            "sort": sort in SORTS,
            "order": order in ("asc", "desc"),
            "filter": fields in ("default", "withbody"),
        }.items():
            if not right:
                raise _Refused(400, name)
        if page > PAGES_WITHOUT_KEY and "key" not in params:
            raise _Refused(403, f"page above {PAGES_WITHOUT_KEY} requires access token or app key")
        found = self._oldest if ids is None else self._with_ids(ids)
        found = _between(found, SORTS["creation"], params, "fromdate", "todate")
        if sort != "creation":
            found = sorted(found, key=lambda question: (SORTS[sort](question), question.id))
        found = _between(found, SORTS[sort], params, "min", "max")
        if order == "desc":
            found = found[::-1]
        start, end = (page - 1) * size, page * size
        return [self._item(question, fields == "withbody") for question in found[start:end]], len(found) > end

    def _with_ids(self, ids: str) -> list[Question]:
        wanted = {int(id) for id in ids.split(";") if id}
        if len(wanted) > 100:
            raise _Refused(400, "ids")
        return [question for question in self._oldest if question.id in wanted]

    def _item(self, question: Question, with_body: bool) -> dict:
        base = f"https://{self.site}.stackexchange.com"
        owner = {"reputation": 101, "user_id": question.id, "user_type": "registered", "display_name": escape(question.owner)}
        item = {
            "tags": question.tags,
            "owner": owner | {"link": f"{base}/users/{question.id}"},
            "is_answered": bool(question.answers),
            "view_count": question.views,
            "answer_count": len(question.answers),
            "score": question.score,
            "last_activity_date": question.active,
            "creation_date": question.created,
            "question_id": question.id,
            "content_license": "CC BY-SA 4.0",
            "link": f"{base}/questions/{question.id}/{question.slug}",
            "title": escape(question.title),
        }
        if question.closed:
            reason = "Duplicate" if question.closed == "duplicate" else "Needs more focus"
            item |= {"closed_date": question.created + 3600, "closed_reason": reason}
        return item | {"body": question.body} if with_body else item


def _wait(seconds: float) -> str:
    return f"too many requests from this IP, more requests available in {max(1, math.ceil(seconds))} seconds"


def _number(params: dict[str, str], name: str, default: int) -> int:
    try:
        return int(params.get(name, default))
    except ValueError:
        raise _Refused(400, name) from None


def _between(questions: list[Question], key: Callable[[Question], int], params: dict[str, str], low: str, high: str):
    """Those of `questions`, sorted by `key`, from the parameter `low` to the parameter `high`, both included."""
    start = bisect_left(questions, _number(params, low, 0), key=key) if low in params else 0
    end = bisect_right(questions, _number(params, high, 0), key=key) if high in params else len(questions)
    return questions[start:end]
