"""What the benchmarks share: where results are written, what machine they come from, and the README's blocks made of them."""

import os
import platform
import re
import subprocess
from pathlib import Path

from tagwright.stage import write_json
from tagwright.task import ROOT

README = ROOT / "README.md"


def results_file(name: str) -> Path:
    return ROOT / "results" / f"{name}.json"


def write_results(name: str, results: dict) -> None:
    """Write `results/<name>.json`, with the machine and the commit that it was measured on."""
    results_file(name).parent.mkdir(exist_ok=True)
    write_json(results_file(name), {"machine": machine(), "commit": commit(), **results})


def commit() -> str | None:
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def machine() -> str:
    names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else []
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"


def update_readme(marker: str, block: str, file: Path = README) -> None:
    """Put a block of Markdown between `<!-- marker -->` and `<!-- /marker -->` of the README, or of another page; raises
    ValueError where the page has no such place."""
    text = file.read_text(encoding="utf8")
    marked = f"<!-- {marker} -->\n{block}\n<!-- /{marker} -->"
    text, places = re.subn(f"<!-- {marker} -->.*<!-- /{marker} -->", lambda _: marked, text, flags=re.DOTALL)
    if not places:
        raise ValueError(f"{file} has no place for {marker}")
    file.write_text(text, encoding="utf8")


def show_bars(name: str, checks: list[dict]) -> None:
    """Print of each check its `system`, `what`, `measured` and `bar`, and whether it is `met`."""
    for check in checks:
        print(f"{'pass      ' if check['met'] else 'FALL SHORT'} {name}: {check['system']}: {check['what']} "
              f"{check['measured']} (bar: {check['bar']})")
