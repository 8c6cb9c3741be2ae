"""The service's HTTP interface. `create_app` makes it; `uvicorn --factory service.api:create_app` serves it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from service import guard, jobs_api, openapi, problems
from service.batching import Batcher
from service.metrics import Measured, Metrics
from service.problems import Problem, described
from service.registry import NAME, Model, Registry, UnknownModel
from service.settings import Settings
from tagwright import __version__
from tagwright.decisions import decide
from tagwright.errors import TagwrightError

STATIC = Path(__file__).parent / "static"
MAX_TEXTS, MAX_NEXT, MAX_KEYS = 256, 50, 32
REFRESH = 1.0  # seconds


def _few_keys(value):
    """Before pydantic makes an error of each: a million of them take ten seconds and a gigabyte."""
    if isinstance(value, list) or (isinstance(value, dict) and len(value) > MAX_KEYS):
        raise ValueError(f"must be a string, or an object of at most {MAX_KEYS} strings")
    return value


Text = Annotated[str | Annotated[dict[str, str], Field(max_length=MAX_KEYS)], BeforeValidator(_few_keys)]


class TagsRequest(BaseModel):
    """One `text`, or several `texts`; each a string, or an object of the model's fields."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={
        "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
        "examples": [{"text": {"title": "Did the Jedi Council ever consider training droids?"}},
                     {"texts": ["Who built the first robot?", "Which ship was the fastest?"], "top": 3}]})

    text: Text = Field(None, json_schema_extra=openapi.without_default)
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, json_schema_extra=openapi.without_default)] = None
    top: openapi.Whole = Field(0, ge=0, le=MAX_NEXT,
                               description="how many of the best labels below their thresholds to give too")

    @model_validator(mode="before")
    @classmethod
    def few_keys(cls, values):
        return _few_keys(values)

    @model_validator(mode="after")
    def one_of_both(self):
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text or texts")
        return self


class Label(BaseModel):
    label: str
    score: float = Field(ge=0, le=1)


class Identity(BaseModel):
    name: str
    checksum: str


class Result(BaseModel):
    tags: list[Label]
    next: list[Label]


class TagsAnswer(BaseModel):
    model: Identity
    results: list[Result]


class Threshold(BaseModel):
    label: str
    threshold: float


class LabelsAnswer(BaseModel):
    model: Identity
    kind: str
    labels: list[Threshold]


class ModelEntry(BaseModel):
    name: str
    title: str
    kind: str | None
    labels: int
    bytes: int
    checksum: str | None
    metrics: dict[str, Any]
    active: bool
    refused: str | None = Field(description="why the service cannot use it")
    fields: list[str]
    examples: list[dict[str, str]]


class ModelsAnswer(BaseModel):
    active: str | None
    previous: str | None
    models: list[ModelEntry]


ModelName = Annotated[str, InPath(pattern=f"^{NAME.pattern}$", examples=["scifi"])]
router = APIRouter()


@router.post("/v1/tags", dependencies=[Depends(guard.limited("tags"))], responses=described(400, 413, 422, 429, 503))
async def tags(request: Request, body: TagsRequest) -> TagsAnswer:
    """Tag one text, or up to 256, at once."""
    texts = [body.text] if body.texts is None else body.texts
    state = request.app.state
    fields = _active(request).tagger.manifest.fields
    _check(texts, fields, state.settings.max_text)
    try:
        model, scores = await state.batcher.scores(texts)
    except TagwrightError as error:  # another model, with other fields, has become the active one meanwhile
        raise Problem(422, str(error)) from None
    state.metrics.texts.inc(len(texts))
    manifest = model.tagger.manifest
    given = decide(scores, model.tagger.thresholds, manifest.kind)
    results = []
    for row, is_given in zip(scores, given, strict=True):
        order = row.argsort()[::-1]
        labels = [Label(label=manifest.labels[index], score=round(float(row[index]), 4)) for index in order if is_given[index]]
        following = [index for index in order if not is_given[index]][: body.top]
        results.append(Result(tags=labels, next=[Label(label=manifest.labels[index], score=round(float(row[index]), 4))
                                                 for index in following]))
    return TagsAnswer(model=Identity(**model.identity), results=results)


def _check(texts: list[Text], fields: list[str], longest: int) -> None:
    for number, text in enumerate(texts):
        where = f"texts.{number}"
        if isinstance(text, dict) and (unknown := [field for field in text if field not in fields]):
            raise Problem(422, f"{where}: the model has no field {unknown[0][:100]!r}; it has {', '.join(fields)}")
        if (length := len(text) if isinstance(text, str) else sum(map(len, text.values()))) > longest:
            raise Problem(413, f"{where} has {length:,} characters; at most {longest:,} are taken")


@router.get("/v1/labels", responses=described(503))
async def labels(request: Request) -> LabelsAnswer:
    """The labels of the active model, with the scores from which on they are given."""
    model = _active(request)
    pairs = zip(model.tagger.labels, model.tagger.thresholds, strict=True)
    return LabelsAnswer(model=Identity(**model.identity), kind=model.tagger.manifest.kind,
                        labels=[Threshold(label=label, threshold=round(float(threshold), 4)) for label, threshold in pairs])


@router.get("/v1/models", responses=described(503))
def models(request: Request) -> ModelsAnswer:
    """The models of the registry, the one that answers, and the one that did so before."""
    registry: Registry = request.app.state.registry
    state = registry.state()
    return ModelsAnswer(**state, models=[ModelEntry(**registry.entry(name, state)) for name in registry.names()])


@router.get("/v1/models/{name}", responses=described(404, 503))
def model(request: Request, name: ModelName) -> ModelEntry:
    """One model, with its fields and examples."""
    registry: Registry = request.app.state.registry
    try:
        return ModelEntry(**registry.entry(name, registry.state()))
    except UnknownModel as error:
        raise Problem(404, str(error)) from None


@router.post("/v1/models/{name}/activate", dependencies=[Depends(guard.privileged)],
             responses=described(401, 403, 404, 409, 503))
def activate(request: Request, name: ModelName) -> ModelEntry:
    """Let this model answer from now on. One that is corrupt or cannot be run is refused, and the running one goes on."""
    registry: Registry = request.app.state.registry
    try:
        registry.activate(name)
        return ModelEntry(**registry.entry(name, registry.state()))
    except UnknownModel as error:
        raise Problem(404, str(error)) from None
    except TagwrightError as error:
        raise Problem(409, f"{name} is refused: {error}") from None


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Whether this process lives."""
    return "ok"


@router.get("/readyz", response_class=PlainTextResponse, responses=described(503))
async def readyz(request: Request) -> str:
    """Whether a model is active."""
    _active(request)
    return "ready"


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> str:
    """Figures for Prometheus."""
    return request.app.state.metrics.text()


def _active(request: Request) -> Model:
    model = request.app.state.registry.model
    if model is None:
        raise Problem(503, "no model is active yet; activate one of /v1/models", retry_after=5)
    return model


@asynccontextmanager
async def _refreshing(app: FastAPI) -> AsyncIterator[None]:
    """Activations by other processes are noticed within REFRESH; no request waits for a model that is loaded."""
    async def refresh() -> None:
        while True:
            await asyncio.sleep(REFRESH)
            await asyncio.to_thread(app.state.registry.refresh)

    await asyncio.to_thread(app.state.registry.refresh)
    task = asyncio.create_task(refresh())
    yield
    task.cancel()


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    app = FastAPI(title="Tagwright", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
                  description="Tags for texts at once; jobs for whole files and trainings.", lifespan=_refreshing)
    app.state.settings, app.state.registry, app.state.limiter = settings, Registry(settings), guard.limiter()
    app.state.metrics = Metrics(app.state.registry)
    app.state.batcher = Batcher(lambda: app.state.registry.model, app.state.metrics.batch.observe)
    problems.install(app)
    app.include_router(router)
    app.include_router(jobs_api.router(settings))
    openapi.complete(app, [jobs_api.UrlRequest, jobs_api.TrainRequest])
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_api_route("/", lambda: FileResponse(STATIC / "index.html"), include_in_schema=False)
    app.add_middleware(Measured, metrics=app.state.metrics)
    app.add_middleware(guard.Caps, max_upload=settings.max_upload)
    return app
