"""/v1/jobs: tagging of files and training, done by the workers."""

import json
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path as FilePath
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from service import guard, problems, uploads
from service.jobs import Job, JobStore, Unavailable, folder_of, new_id, open_store
from service.openapi import Whole
from service.problems import Problem, described
from service.settings import Settings
from service.worker import ring
from tagwright.errors import TagwrightError
from tagwright.sources import is_address
from tagwright.task import ROOT, Task

CHUNK = 1 << 20  # bytes
MAX_TASK = 20_000  # bytes of a task file; the time to read TOML grows with the square of its longest key
MAX_COLUMN = 200  # characters of a column's name
JobId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", examples=["0123456789abcdef"])]


class Progress(BaseModel):
    done: int
    total: int | None
    unit: str


class JobAnswer(BaseModel):
    id: str
    kind: str
    name: str
    state: str
    created: str
    started: str | None
    finished: str | None
    progress: Progress
    eta_seconds: float | None
    message: str | None
    error: str | None
    result: str | None
    model: str | None
    curve: list[dict[str, Any]]
    counts: dict[str, Any]


class JobsAnswer(BaseModel):
    jobs: list[JobAnswer]


class UrlRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: str = Field(max_length=2000, pattern=uploads.URL, description="of an allowed host (TAGWRIGHT_URL_HOSTS)")
    text: str | None = Field(None, max_length=MAX_COLUMN, description="the column that holds the text")


class TrainSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: Whole | None = Field(None, ge=1, le=50)
    seed: Whole | None = Field(None, ge=0, lt=2**31)


class TrainRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    task: str = Field(pattern=r"^[a-z0-9_-]{1,64}$", description="one of the service's own tasks")
    data: Literal["sample"] | None = Field(None, description="the task's embedded sample in place of its own rows")
    settings: TrainSettings = TrainSettings()


def router(settings: Settings) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs")
    store: JobStore = open_store(settings)

    def accept(kind: str, name: str, arguments: dict, job_id: str, response: Response) -> JobAnswer:
        try:
            with available():
                job = store.add(kind, name[:200], arguments, job_id)
        except Problem:
            shutil.rmtree(folder_of(settings, job_id), ignore_errors=True)
            raise
        ring(settings, job.id)  # should the message be lost, the workers' watch finds the job
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return shown(job)

    @routes.post("/tag", status_code=202, dependencies=[Depends(guard.limited("jobs"))],
                 responses=described(400, 403, 413, 415, 422, 429, 503), openapi_extra=BODIES["tag"])
    async def tag(request: Request, response: Response) -> JobAnswer:
        """Tag the rows of a file: CSV, TSV, JSON Lines, parquet, or plain text with a text a line."""
        with available():
            await run_in_threadpool(store.newest, 1)  # no upload is taken that cannot be kept
        job_id = new_id()
        folder = folder_of(settings, job_id)
        try:
            if is_json(request):
                wanted = await parsed(request, UrlRequest)
                uploads.check(wanted.url, settings.url_hosts)
                ending = uploads.form_of(wanted.url.partition("?")[0])
                await uploads.fetch(wanted.url, folder / f"input{ending}", settings)
                name, text = wanted.url.rpartition("/")[2], wanted.text
            else:
                async with form_of(request, {"file"}, {"text"}) as form:
                    file, text = form.get("file"), form.get("text") or None
                    if not isinstance(file, UploadFile) or not (text is None or isinstance(text, str)):
                        raise Problem(422, "the form needs a file in its field `file`, and may name a column in `text`")
                    if text and len(text) > MAX_COLUMN:
                        raise Problem(422, f"text: a column's name has at most {MAX_COLUMN} characters")
                    name, ending = file.filename or "", uploads.form_of(file.filename or "")
                    await uploads.save(pieces(file), folder / f"input{ending}", settings.max_upload)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return await run_in_threadpool(accept, "tag", name, {"file": f"input{ending}", "text": text}, job_id, response)

    @routes.post("/train", status_code=202, dependencies=[Depends(guard.privileged), Depends(guard.limited("jobs"))],
                 responses=described(400, 401, 403, 413, 415, 422, 429, 503), openapi_extra=BODIES["train"])
    async def train(request: Request, response: Response) -> JobAnswer:
        """Train a model of a task file and its rows; it goes live if it beats the active one on the same test rows."""
        with available():
            await run_in_threadpool(store.newest, 1)
        job_id = new_id()
        folder = folder_of(settings, job_id)
        try:
            if is_json(request):
                wanted = await parsed(request, TrainRequest)
                try:
                    task = Task.load(wanted.task).with_data(wanted.data)
                except TagwrightError as error:
                    raise Problem(422, str(error)) from None
                arguments = {"task": wanted.task, "place": wanted.data,
                             "settings": wanted.settings.model_dump(exclude_none=True)}
            else:
                async with form_of(request, {"task", "data"}, {"settings"}) as form:
                    task_file, data = form.get("task"), form.get("data")
                    if not isinstance(task_file, UploadFile) or not isinstance(data, UploadFile):
                        raise Problem(422, "the form needs a task file in `task` and its rows in `data`")
                    ending = uploads.form_of(data.filename or "")
                    await uploads.save(pieces(task_file), folder / "task.toml", MAX_TASK)
                    await uploads.save(pieces(data), folder / f"rows{ending}", settings.max_upload)
                    try:
                        task = await run_in_threadpool(uploaded_task, folder / "task.toml", settings.encoders)
                    except TagwrightError as error:
                        raise Problem(422, str(error).replace(f"{folder}/", "")) from None
                    settings_text = form.get("settings") or "{}"
                    if not isinstance(settings_text, str):
                        raise Problem(422, "settings: must be JSON in a plain field, not a file")
                    given = checked(TrainSettings, settings_text)
                arguments = {"task": "task.toml", "rows": f"rows{ending}", "settings": given.model_dump(exclude_none=True)}
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return await run_in_threadpool(accept, "train", task.name, arguments, job_id, response)

    @routes.get("", responses=described(503))
    def listed() -> JobsAnswer:
        """The newest 100 jobs."""
        with available():
            return JobsAnswer(jobs=[shown(job) for job in store.newest()])

    @routes.get("/{job_id}", responses=described(404, 503))
    def one(job_id: JobId) -> JobAnswer:
        """How far a job is, and how it ended."""
        return shown(found(job_id))

    @routes.get("/{job_id}/result", response_class=FileResponse, responses=RESULT | described(404, 409, 410, 503))
    def result(job_id: JobId) -> FileResponse:
        """The tagged file."""
        job = found(job_id)
        if not job.ended:
            raise Problem(409, f"job {job_id} is {job.state}; its result comes when it has succeeded", retry_after=2)
        if job.result is None:
            raise Problem(409, f"job {job_id} has {job.state} without a file")
        path = folder_of(settings, job.id) / job.result
        if not path.is_file():
            raise Problem(410, f"the result of job {job_id} was kept for {settings.keep_results_hours} hours and is gone")
        return FileResponse(path, media_type="application/octet-stream", filename=job.result)

    @routes.delete("/{job_id}", status_code=202, dependencies=[Depends(guard.privileged)],
                   responses=described(401, 403, 404, 503))
    def remove(job_id: JobId) -> JobAnswer:
        """Cancel a job that has not ended; remove one that has, with its files."""
        job = found(job_id)
        with available():
            if job.ended:
                store.delete(job_id)
                shutil.rmtree(folder_of(settings, job_id), ignore_errors=True)
            else:
                job = store.cancel(job_id) or job
        return shown(job)

    def found(job_id: str) -> Job:
        with available():
            job = store.get(job_id)
        if job is None:
            raise Problem(404, f"there is no job {job_id[:100]!r}; it may have been removed")
        return job

    return routes


def shown(job: Job) -> JobAnswer:
    eta = None
    if job.state == "running" and job.total and job.done and job.heartbeat > (job.started or 0):
        eta = round((job.heartbeat - job.started) * (job.total - job.done) / job.done, 1)
    return JobAnswer(
        id=job.id, kind=job.kind, name=job.name, state=job.state, created=iso(job.created), started=iso(job.started),
        finished=iso(job.finished), progress=Progress(done=job.done, total=job.total,
                                                      unit="rows" if job.kind == "tag" else "steps"),
        eta_seconds=eta, message=job.message, error=job.error, model=job.model, curve=job.curve, counts=job.counts,
        result=f"/v1/jobs/{job.id}/result" if job.result and job.state == "succeeded" else None)


def iso(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None


@contextmanager
def available():
    try:
        yield
    except Unavailable as error:
        raise Problem(503, f"jobs cannot be reached at the moment; none that was accepted is lost ({error})",
                      retry_after=5) from None


def is_json(request: Request) -> bool:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind not in (b"application/json", b"multipart/form-data"):
        raise Problem(415, "send multipart/form-data with a file, or application/json")
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):  # others can spell half a character, or fail
        raise Problem(415, "send UTF-8")
    return kind == b"application/json"


async def parsed(request: Request, shape: type[BaseModel]) -> Any:
    return checked(shape, await request.body())


def checked(shape: type[BaseModel], content: str | bytes) -> Any:
    try:
        return shape.model_validate(json.loads(content))
    except ValidationError as error:
        raise problems.invalid(error.errors()) from None
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"no JSON: {error}") from None


def uploaded_task(path: FilePath, encoders: list[str]) -> Task:
    """A task file that came with its rows. Its author is a stranger to this machine: it may name no other file on it, nor an
    encoder that neither a task of the service's own nor `encoders` names, which would be downloaded, or looked for in folders.

    Raises TagwrightError for one that does, or that is no task.
    """
    task = Task.load(path)
    source = PurePosixPath(task.source.path)  # never opened: the rows are the uploaded ones
    if source.is_absolute() or task.source.path.startswith("~") or ".." in source.parts or is_address(task.source.path):
        raise TagwrightError("source.path: the rows are those that come with the task; name no file of this machine, and no "
                             "address")
    for key in ("test_path", "test_member"):
        if getattr(task.source, key) is not None:
            raise TagwrightError(f"source.{key}: a task that comes with its rows has no other file; split.by can be stratified "
                                 "or position")
    if task.source.member is not None:
        raise TagwrightError("source.member: the rows come as a file, not in an archive")
    if task.source.url is not None:
        raise TagwrightError("source.url: the rows are those that come with the task; name no address")
    if task.sample is not None:
        raise TagwrightError("sample: the rows are those that come with the task")
    known = [*own_encoders(), *encoders]
    if unknown := [encoder for encoder in task.encoders if encoder not in known]:
        raise TagwrightError(f"model: {unknown[0][:100]!r} is none of this service's encoders: {', '.join(known)}")
    return task


@cache
def own_encoders() -> list[str]:
    """The encoders that the service's own tasks name."""
    return sorted({encoder for path in (ROOT / "tasks").glob("*.toml") for encoder in Task.load(path).encoders})


@contextmanager
def _form_errors():
    try:
        yield
    except ClientDisconnect:
        raise Problem(400, "the upload broke off") from None


class form_of:  # noqa: N801 - used as `async with form_of(request)`
    """The form of a request, with at most these files and fields, each once. Raises Problem for another."""

    def __init__(self, request: Request, files: set[str], fields: set[str]):
        self.names = files | fields
        self.form = request.form(max_files=len(files), max_fields=len(fields), max_part_size=10_000)

    async def __aenter__(self):
        with _form_errors():
            form = await self.form.__aenter__()
        names = [name for name, _ in form.multi_items()]
        if len(set(names)) < len(names) or not self.names.issuperset(names):
            await form.close()
            raise Problem(422, f"the form takes {', '.join(sorted(self.names))}, each once")
        return form

    async def __aexit__(self, *error):
        return await self.form.__aexit__(*error)


async def pieces(file: UploadFile):
    while piece := await file.read(CHUNK):
        yield piece


def _body(shape: type[BaseModel], form: dict, required: list[str], examples: dict) -> dict:
    return {"requestBody": {"required": True, "content": {
        "multipart/form-data": {"schema": {"type": "object", "properties": form, "required": required,
                                           "additionalProperties": False},
                                "encoding": {"settings": {"contentType": "application/json"}} if "settings" in form else {}},
        "application/json": {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}, "examples": examples}}}}


BINARY = {"type": "string", "format": "binary"}
RESULT = {200: {"description": "The tagged file", "content": {"application/octet-stream": {"schema": BINARY}}}}
BODIES = {
    "tag": _body(UrlRequest, {
        "file": BINARY | {"description": f"its name ends in one of {', '.join(uploads.FORMS)}"},
        "text": {"type": "string", "maxLength": MAX_COLUMN, "description": "the column that holds the text"},
    }, ["file"], {"url": {"value": {"url": "https://example.org/titles.csv", "text": "title"}}}),
    "train": _body(TrainRequest, {
        "task": BINARY | {"description": f"a task file (TOML) of at most {MAX_TASK:,} bytes"},
        "data": BINARY | {"description": f"its rows; its name ends in one of {', '.join(uploads.FORMS)}"},
        "settings": {"$ref": "#/components/schemas/TrainSettings"},
    }, ["task", "data"], {"task": {"value": {"task": "scifi", "settings": {"epochs": 2}}}}),
}
