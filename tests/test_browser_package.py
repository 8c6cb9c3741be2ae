"""The browser package: in Node, in a page and in the extension the model says what Python's Tagger says."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_parity import ODD_TEXTS

from tagwright.tagger import Tagger
from tagwright.task import ROOT

PACKAGE = ROOT / "deployment" / "browser"
# How far a score may be from Python's. onnxruntime's int8 kernels differ between builds: one that saturates, as on processors
# without VNNI, or that rounds another way, moves an activation by a step.
TOLERANCE = {"fp32": 1e-4, "int8": 0.05}


@pytest.fixture(scope="session")
def package():
    """The package with what it needs installed."""
    if not (PACKAGE / "node_modules" / ".package-lock.json").exists():
        subprocess.run(["npm", "ci"], cwd=PACKAGE, check=True)
    return PACKAGE


@pytest.fixture(scope="module")
def model(demo_run) -> Path:
    return demo_run.root / "tagger"


@pytest.fixture(scope="module")
def texts(demo_run) -> list:
    """Odd texts, titles, and questions with both fields."""
    rows = [json.loads(line) for line in demo_run.sample.read_text(encoding="utf8").splitlines()]
    titles = [row["title"] for row in rows if row["title"]][:260]
    questions = [{"title": row["title"] or "", "body": row["body"] or ""} for row in rows[-20:]]
    return ODD_TEXTS + titles + questions


@pytest.fixture(scope="module")
def expected(model, texts) -> dict[str, np.ndarray]:
    """Python's scores."""
    return {name: Tagger.load(model, name).scores(texts) for name in TOLERANCE}


def node(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(["node", *map(str, arguments)], cwd=PACKAGE, capture_output=True, text=True, **options)


def test_the_lock_file_names_no_host():
    lock = (PACKAGE / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "://" not in lock


def test_versions_are_pinned():
    described = json.loads((PACKAGE / "package.json").read_text())
    assert all(version[0].isdigit() for version in (described["dependencies"] | described["devDependencies"]).values())


def test_the_packages_own_tests_pass(package):
    done = subprocess.run(["npm", "test"], cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("precision", TOLERANCE)
def test_node_agrees_with_python(package, model, texts, expected, precision):
    assert len(texts) >= 300
    done = node("test/scores.js", model, precision, input=json.dumps(texts))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tagger = Tagger.load(model, precision)
    assert found["ids"] == [encoding.ids for encoding in tagger._tokenizer.encode_batch([tagger._text(text) for text in texts])]
    assert np.abs(np.array(found["scores"]) - expected[precision]).max() < TOLERANCE[precision]
    if precision == "fp32":
        assert [[tag["label"] for tag in tags] for tags in found["tags"]] == [[label for label, _ in tags]
                                                                              for tags in tagger.tag(texts)]
