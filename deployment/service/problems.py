"""Every error as problem JSON (RFC 9457)."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20  # named in an answer
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
    title = HTTPStatus(status).phrase
    return JSONResponse({"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": path} | extra,
                        status, headers, MEDIA_TYPE)


def described(*statuses: int) -> dict[int, dict]:
    """The problems of a route, for the OpenAPI document."""
    return {status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": SCHEMA}}}
            for status in statuses}


def install(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem):
        return answer(error.status, error.detail, request.url.path, error.headers, **error.extra)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException):
        return answer(error.status_code, str(error.detail), request.url.path, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError):
        errors = [{"field": ".".join(str(part) for part in entry["loc"][1:]) or str(entry["loc"][0]), "message": entry["msg"]}
                  for entry in error.errors()[:MAX_ERRORS]]
        detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in errors[:3])
        return answer(422, detail, request.url.path, errors=errors)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception):  # the framework logs it with its trace
        return answer(500, "the service failed at this request; its log says why", request.url.path)
