"""The whole road on the embedded sample, by the command that users type (the `demo_run` fixture runs it once)."""

import json
import subprocess
import sys
from pathlib import Path

TAGWRIGHT = Path(sys.executable).parent / "tagwright"


def record(demo_run, folder: str) -> dict:
    return json.loads((demo_run.root / folder / "run.json").read_text(encoding="utf8"))


def test_the_demo_prints_its_tables_and_tags_the_examples(demo_run):
    for expected in ("dropped: near duplicate", "labels kept", "TF-IDF", "PyTorch", "ONNX fp32", "ONNX int8", "macro-F1"):
        assert expected in demo_run.output
    assert "Did the Jedi Council ever consider training droids?\n    star-wars" in demo_run.output


def test_the_model_beats_the_baseline_on_the_test_rows(demo_run):
    scores = record(demo_run, "tagger")["metrics"]
    assert scores["PyTorch"]["micro_f1"] > scores["TF-IDF + logistic regression"]["micro_f1"] + 0.1
    assert scores["PyTorch"]["p_at_1"] > 0.6


def test_every_stage_leaves_a_record_that_can_be_traced(demo_run):
    for folder in ("dataset", "model", "evaluation", "tagger"):
        run = record(demo_run, folder)
        assert {"stage", "settings", "fingerprint", "seconds", "versions", "files", "rows"} <= set(run)
        for name, entry in run["files"].items():
            assert (demo_run.root / folder / name).stat().st_size == entry["bytes"]


def test_no_stage_writes_a_pickle(demo_run):
    endings = {path.suffix for path in demo_run.root.rglob("*") if path.is_file()}
    assert endings <= {".json", ".jsonl", ".parquet", ".csv", ".npz", ".safetensors", ".onnx", ".md"}


def test_a_second_run_skips_every_stage_and_says_so(demo_run):
    before = {path: path.stat().st_mtime_ns for path in demo_run.root.rglob("run.json")}
    command = [TAGWRIGHT, "demo", "scifi", "--work", demo_run.root.parent]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    for stage in ("clean", "train", "evaluate", "quantize"):
        assert f"{stage}: skipped" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in demo_run.root.rglob("run.json")}


def test_peak_memory_stays_under_two_and_a_half_gigabytes(demo_run):
    assert demo_run.peak_bytes < 2.5e9
