"""Completes the OpenAPI document: what FastAPI cannot see, or says of problems as it would report them itself."""

from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, BeforeValidator
from pydantic.json_schema import models_json_schema

from service import problems


def complete(app: FastAPI, bodies: list[type[BaseModel]]) -> None:
    """Problems, and the `bodies` that routes read themselves, become schemas of their own; the 422 that FastAPI adds to every
    route with a parameter goes, where the route does not answer so."""
    made = app.openapi

    def openapi() -> dict:
        if app.openapi_schema is None:
            document = made()
            schemas = document["components"]["schemas"]
            for operation in (operation for path in document["paths"].values() for operation in path.values()):
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
            for name in ("HTTPValidationError", "ValidationError"):
                del schemas[name]
            shapes = [(shape, "validation") for shape in bodies]
            schemas.update(models_json_schema(shapes, ref_template="#/components/schemas/{model}")[1]["$defs"])
            schemas["Problem"] = problems.SCHEMA
        return app.openapi_schema

    app.openapi = openapi


def without_default(schema: dict) -> None:
    """For a field that may be absent, but not null."""
    schema.pop("default")


def _number(value):
    if isinstance(value, str | bool):
        raise ValueError("must be a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_number)]  # as JSON has it: 3 and 3.0, not "3" or true
