"""The service's OpenAPI document says all that the service does, and the service does what it says."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from service_process import api

pytestmark = pytest.mark.long

TOKEN = "a token of the tests"
PROBLEM = "application/problem+json"
STATUSES = {  # of each operation: how it answers where all is well, and its problems
    "POST /v1/tags": {200, 400, 413, 422, 429, 503}, "GET /v1/labels": {200, 503},
    "GET /v1/models": {200, 503}, "GET /v1/models/{name}": {200, 404, 503},
    "POST /v1/models/{name}/activate": {200, 401, 403, 404, 409, 503},
    "POST /v1/jobs/tag": {202, 400, 403, 413, 415, 422, 429, 503},
    "POST /v1/jobs/train": {202, 400, 401, 403, 413, 415, 422, 429, 503},
    "GET /v1/jobs": {200, 503}, "GET /v1/jobs/{job_id}": {200, 404, 503},
    "DELETE /v1/jobs/{job_id}": {202, 401, 403, 404, 503},
    "GET /v1/jobs/{job_id}/result": {200, 404, 409, 410, 503},
    "GET /healthz": {200}, "GET /readyz": {200, 503}, "GET /metrics": {200},
}
WELL = {"GET /healthz": "text/plain", "GET /readyz": "text/plain", "GET /metrics": "text/plain",
        "GET /v1/jobs/{job_id}/result": "application/octet-stream"}  # and JSON for the others
PRIVILEGED = {"POST /v1/models/{name}/activate", "POST /v1/jobs/train", "DELETE /v1/jobs/{job_id}"}
CONFIG = """
# GET /v1/jobs/tag asks for the job of that name, and is told that there is none (404), not that it may not ask (405).
# And a document cannot say that a file's name has to end in one of five endings, so schemathesis sends file.png.
[[operations]]
include-path-regex = "^/v1/jobs/(tag|train)$"
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false
checks.positive_data_acceptance.enabled = false
"""
OPEN_HERE = """
# Without a token this machine may do all, so no header is needed, whatever the document says of strangers.
[generation]
with-security-parameters = false
[checks]
ignored_auth.enabled = false
missing_required_header.enabled = false
"""


@pytest.fixture(scope="module", params=[TOKEN, None], ids=["token", "no token"])
def running(request, demo_run, tmp_path_factory):
    settings = {"token": request.param} if request.param else {}
    with api(demo_run.root / "tagger", tmp_path_factory.mktemp("schema"), **settings) as process:
        yield process, request.param


def operations(document: dict) -> dict[str, dict]:
    return {f"{method.upper()} {path}": operation for path, methods in document["paths"].items()
            for method, operation in methods.items()}


def test_the_document_is_complete(running):
    document = httpx.get(f"{running[0].url}/openapi.json").json()
    found = operations(document)
    assert {name: set(map(int, operation["responses"])) for name, operation in found.items()} == STATUSES
    for name, operation in found.items():
        assert operation["description"], name
        for status, response in operation["responses"].items():
            if int(status) < 400:
                assert list(response["content"]) == [WELL.get(name, "application/json")], name
            else:
                assert response["content"] == {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}, name
        assert bool(operation.get("security")) == (name in PRIVILEGED), name
        for parameter in operation.get("parameters", []):
            assert parameter["schema"]["pattern"], name
            assert parameter["schema"]["examples"], name
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for name, shape in (("tag", "UrlRequest"), ("train", "TrainRequest")):
        content = found[f"POST /v1/jobs/{name}"]["requestBody"]["content"]
        assert content["application/json"]["schema"]["$ref"] == f"#/components/schemas/{shape}"
        assert content["application/json"]["examples"]
        assert content["multipart/form-data"]["schema"]["required"]
    assert document["components"]["schemas"]["TagsRequest"]["examples"]


def test_schemathesis_finds_nothing(running, tmp_path):
    process, token = running
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG if token else OPEN_HERE + CONFIG)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run", f"{process.url}/openapi.json",
               "--phases", "examples,coverage,fuzzing", "--max-examples", "40", "--seed", "1", "--generation-database", "none",
               "--continue-on-failure", "--no-color", "--request-timeout", "30"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "service_schema_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([*command, *(["--header", f"Authorization: Bearer {token}"] if token else [])], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr + process.log.read_text()
    assert f"Tested: {len(STATUSES)}" in done.stdout
    assert process.process.is_running()
    assert "Traceback" not in process.log.read_text()
