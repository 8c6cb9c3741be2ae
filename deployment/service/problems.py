"""Every error as problem JSON (RFC 9457)."""

import logging
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from tagwright.errors import TagwrightError

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20  # named in an answer
MAX_DETAIL, MAX_NAME = 1000, 200  # characters: a refusal is short, however long what it quotes
SCHEMA = {
    "type": "object", "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object", "properties": {"field": {"type": "string"},
                                                                                "message": {"type": "string"}}}},
    },
    "example": {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no model 'x'",
                "instance": "/v1/models/x"},
}
REFERENCE = "#/components/schemas/Problem"
log = logging.getLogger(__name__)


class Problem(Exception):
    """Raised anywhere in a request, it becomes the answer. `retry_after` is in seconds."""

    def __init__(self, status: int, detail: str, retry_after: int | None = None, **extra):
        super().__init__(detail)
        self.status, self.detail, self.extra = status, detail, extra
        self.headers = {"Retry-After": str(retry_after)} if retry_after else {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"


def answer(status: int, detail: str, path: str, headers: dict[str, str] | None = None, **extra) -> JSONResponse:
    return JSONResponse({"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status,
                         "detail": cut(detail, MAX_DETAIL), "instance": cut(path, MAX_NAME)} | extra,
                        status, headers, MEDIA_TYPE)


def cut(text: str, longest: int) -> str:
    """At most `longest` characters of a text, all of which UTF-8 can hold."""
    return (text if len(text) <= longest else text[: longest - 1] + "…").encode("utf8", "backslashreplace").decode("utf8")


def invalid(faults: Sequence[dict]) -> Problem:
    """422 for what pydantic found wrong, whose `loc` says where."""
    errors = [{"field": cut(".".join(map(str, fault["loc"])), MAX_NAME), "message": cut(fault["msg"], MAX_NAME)}
              for fault in faults[:MAX_ERRORS]]
    return Problem(422, "; ".join(f"{error['field']}: {error['message']}".removeprefix(": ") for error in errors[:3]),
                   errors=errors)


def described(*statuses: int) -> dict[int, dict]:
    """The problems of a route, for the OpenAPI document."""
    return {status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE}}}}
            for status in statuses}


def install(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem):
        return answer(error.status, error.detail, request.scope["path"], error.headers, **error.extra)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException):
        headers = dict(error.headers or {})
        if "Allow" in headers:  # of all routes with this path, where Starlette names those of the first
            headers["Allow"] = ", ".join(method for method in ("GET", "POST", "DELETE") if any(
                route.matches(request.scope | {"method": method})[0] == Match.FULL for route in app.routes))
        return answer(error.status_code, str(error.detail), request.scope["path"], headers)

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError):
        fault = error.errors()[0]
        if fault["loc"][0] == "path":  # a name that nothing can have
            return await problem(request, Problem(404, f"nothing here has the {fault['loc'][1]} {fault['input'][:100]!r}"))
        if fault["type"] == "json_invalid":
            return await problem(request, Problem(422, f"the body is no JSON: {fault['ctx']['error']} at {fault['loc'][1]}"))
        return await problem(request, invalid([entry | {"loc": entry["loc"][1:]} for entry in error.errors()]))

    @app.exception_handler(TagwrightError)
    async def broken(request: Request, error: TagwrightError):  # not of the request, which its route would have told
        log.error("%s: %s", request.scope["path"], error)
        return await problem(request, Problem(503, "the models cannot be read; the service's log says why", retry_after=5))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception):  # the framework logs it with its trace
        return answer(500, "the service failed at this request; its log says why", request.scope["path"])
