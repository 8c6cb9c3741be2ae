"""Completes the OpenAPI document: what FastAPI cannot see, or says of problems as it would report them itself."""

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from service import jobs_api, problems


def complete(app: FastAPI) -> None:
    """Problems, and the bodies that the routes of jobs read themselves, become schemas of their own; the 422 that FastAPI adds
    to every route with a parameter goes, where the route does not answer so."""
    made = app.openapi

    def openapi() -> dict:
        if app.openapi_schema is None:
            document = made()
            schemas = document["components"]["schemas"]
            for operation in (operation for path in document["paths"].values() for operation in path.values()):
                if problems.MEDIA_TYPE not in operation["responses"].get("422", {}).get("content", {problems.MEDIA_TYPE: ...}):
                    del operation["responses"]["422"]
            for name in ("HTTPValidationError", "ValidationError"):
                del schemas[name]
            bodies = [(shape, "validation") for shape in (jobs_api.UrlRequest, jobs_api.TrainRequest)]
            schemas.update(models_json_schema(bodies, ref_template="#/components/schemas/{model}")[1]["$defs"])
            schemas["Problem"] = problems.SCHEMA
        return app.openapi_schema

    app.openapi = openapi


def without_default(schema: dict) -> None:
    """For a field that may be absent, but not null."""
    schema.pop("default")
