"""Executes the numbered notebooks in order and cleans what they show: `python execute.py [NAME …] [options]`.

In place by default. With `--quick` (or QUICK=1 in the environment) everything is small. Executed copies of a quick run, or of
another task or other rows than the notebooks', go to `build/notebooks` unless `--out` says otherwise, so that the committed
outputs stay those of a full run. Cleaning leaves
no timings, progress bars or stderr behind: two runs with the same results give the same files.
"""

import argparse
import ast
import os
import re
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell
from traitlets import default
from traitlets.config import Config

from tagwright.task import Task

HERE = Path(__file__).resolve().parent
INJECTED = "injected-parameters"  # as papermill names it
PROGRESS = "progress"  # our tag: what such a cell prints is only of interest while it runs
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class ThisPython(AsyncKernelManager):
    """Starts kernels of the Python that runs this script, whatever kernels are installed."""

    @default("kernel_spec_manager")
    def _no_folder_to_look_in(self):
        return KernelSpecManager(kernel_dirs=[])


def notebooks(names: list[str] | None = None) -> list[Path]:
    """The numbered notebooks in order; with `names` ("03", "03_finetuning") only those."""
    found = sorted(HERE.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return found
    if unknown := [name for name in names if not any(path.name.startswith(name) for path in found)]:
        sys.exit(f"error: no notebook {', '.join(unknown)}; there are {', '.join(path.stem for path in found)}")
    return [path for path in found if path.name.startswith(tuple(names))]


def execute(path: Path, parameters: dict) -> nbformat.NotebookNode:
    """Run one notebook in a fresh kernel of this Python, in `notebooks/`, with these values for its parameters.

    Raises CellExecutionError where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    place = next(place for place, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    known = {target.id for node in ast.parse(notebook.cells[place].source).body for target in node.targets}
    if lines := [f"{name} = {value!r}" for name, value in parameters.items() if name in known]:
        notebook.cells.insert(place + 1, new_code_cell("\n".join(lines), metadata={"tags": [INJECTED]}))
    with TemporaryDirectory() as sockets:
        private = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}  # no open ports
        client = NotebookClient(
            notebook, kernel_manager_class=ThisPython, kernel_name="python3", config=Config(ThisPython=private), timeout=None,
            record_timing=False, store_widget_state=False, coalesce_streams=True, resources={"metadata": {"path": str(HERE)}},
        )
        return client.execute()


def clean(notebook: nbformat.NotebookNode) -> list[str]:
    """Leave only what a reader wants to see and a second run would repeat; returns what was on stderr."""
    dropped = []
    notebook.cells = [cell for cell in notebook.cells if INJECTED not in cell.metadata.get("tags", [])]
    notebook.metadata = nbformat.from_dict(METADATA)
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        dropped += [output.text for output in cell.outputs if output.get("name") == "stderr"]
        cell.outputs = [] if PROGRESS in (tags or []) else [output for output in cell.outputs if _wanted(output)]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            for kind in ("text/html", "text/plain"):
                if kind in output.get("data", {}):
                    output.data[kind] = _steady(output.data[kind])
    return dropped


def recorded(notebook: nbformat.NotebookNode) -> dict:
    """The key numbers of a stage: the dict that the last code cell shows."""
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    return ast.literal_eval(last.outputs[0].data["text/plain"])


def _wanted(output: nbformat.NotebookNode) -> bool:
    return output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def _steady(text: str) -> str:
    """Without pandas' style sheets, and without the ids and addresses that differ from run to run."""
    text = re.sub(r"<style[^>]*>.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' (id="T_\w+"|class="(data|row_heading|col_heading|blank|index_name)[^"]*")', "", text)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks to run, as 03 or 03_finetuning (default: all)")
    parser.add_argument("--task", help="another task than the one in the notebooks")
    parser.add_argument("--data", help="where the task's rows are: a file, an archive, a folder, an address or the word sample "
                                       "(default: where the task says; quick: its sample, if it has one)")
    parser.add_argument("--quick", action="store_true", help="one epoch on shortened texts")
    parser.add_argument("--work", type=Path, help="where the stages write (default: data/work)")
    parser.add_argument("--out", type=Path, help="where the executed copies go (default: in place; quick, --task, --data: build/notebooks)")
    options = parser.parse_args()
    quick = options.quick or os.environ.get("QUICK") == "1"
    out = options.out or (HERE.parent / "build" / "notebooks" if quick or options.task or options.data else HERE)
    data = options.data or ("sample" if quick and options.task and Task.load(options.task).sample else None)
    chosen = {"TASK": options.task, "DATA": data, "WORK": options.work and str(options.work.resolve()), "QUICK": quick}
    parameters = {name: value for name, value in chosen.items() if value}
    out.mkdir(parents=True, exist_ok=True)
    for path in notebooks(options.names):
        started = time.time()
        try:
            notebook = execute(path, parameters)
        except CellExecutionError as error:
            print(f"{path.stem}: a cell failed\n{error}", file=sys.stderr)
            return 1
        for text in clean(notebook):
            print(f"{path.stem}: left out from stderr: {text.strip()}", file=sys.stderr)
        nbformat.write(notebook, out / path.name)
        print(f"{path.stem}: {time.time() - started:.0f} s → {out / path.name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
