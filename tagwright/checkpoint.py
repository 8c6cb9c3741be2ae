"""What an interrupted training goes on from: one file, written after each epoch, removed when the training has ended.

The file is hidden beside the model's folder (`.model.checkpoint.safetensors`): weights, optimiser state, and the best
epoch's weights where it was an earlier one, with the history as JSON in its header. It is written under another name and
then renamed, so a kill at any moment leaves the previous one whole. It fits only the inputs, settings and code it came from.
"""

import contextlib
import json
import os
import time
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.torch_core import maybe_gather, rank_distrib
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tagwright.callbacks import network
from tagwright.errors import TagwrightError
from tagwright.stage import full_disk_named


class Checkpoint(Callback):
    """Saves each epoch's end, and puts a training back to where the file left it.

    `made_of` is what the training comes from: a dict of JSON values (`Stage.made_of`). After `open`, `runs` and then
    `epochs` of the next run are done and need not be trained again; they took `seconds`.
    """

    order = 63  # after BestEpoch, Soup and Progress

    def __init__(self, out_dir: Path, made_of: dict):
        self.file = Path(out_dir).absolute().with_name(f".{Path(out_dir).name}.checkpoint.safetensors")
        self.made_of, self.state, self.runs, self.epochs = json.loads(json.dumps(made_of, default=str)), None, 0, 0
        self.seconds, self.started = 0.0, time.perf_counter()

    def open(self, anew: bool = False) -> str:
        """Read the file's header, or with `anew` remove the file; returns why there is nothing to go on from, or ""."""
        if anew and rank_distrib() == 0:
            self.remove()
        if anew or not self.file.is_file():
            return f"there is no checkpoint at {self.file}"
        try:
            with safe_open(self.file, "pt") as tensors:
                state = json.loads(tensors.metadata()["state"])
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            return f"the checkpoint at {self.file} cannot be read ({error})"
        if differences := _differences(state["made_of"], self.made_of):
            return f"the checkpoint at {self.file} is of another training: {'; '.join(differences)}"
        self.state, self.runs, self.epochs = state, state["runs"], state["epochs"]
        self.seconds = state["seconds"]
        return ""

    def spent(self) -> float:
        """Seconds of training so far, those before an interruption with them."""
        return self.seconds + time.perf_counter() - self.started

    def before_fit(self):
        done = torch.tensor([[self.runs, self.epochs]], device=self.dls.device)
        if (maybe_gather(done) != done).any():
            raise TagwrightError(f"not every process sees the checkpoint {self.file}: put the work folder (--work) on a disk "
                                 "that all machines share")
        if self.state is None:
            return
        best, soup = self.learn.best_epoch, self.learn.soup
        best.history, best.best, best.since = (self.state[key] for key in ("history", "best", "since"))
        optimizer = self.opt.opt
        moments = {index: {} for index in range(sum(len(group["params"]) for group in optimizer.param_groups))}
        weights, best.weights = {}, {}
        parts = {"model": weights, "best": best.weights, "soup": soup.weights}
        with safe_open(self.file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no dict
                part, name = key.split("/", 1)
                if part == "optimizer":
                    index, name = name.split("/")
                    moments[int(index)][name] = tensors.get_tensor(key)
                else:
                    parts[part][name] = tensors.get_tensor(key)
        network(self.learn).load_state_dict(weights)
        best.weights = best.weights or weights
        optimizer.load_state_dict({"state": {index: values for index, values in moments.items() if values},
                                   "param_groups": optimizer.state_dict()["param_groups"]})
        self.state = None

    def after_validate(self):
        best, soup = self.learn.best_epoch, self.learn.soup
        self.runs, self.epochs = soup.runs, self.epoch + 1
        if rank_distrib() > 0:
            return
        tensors = {f"model/{name}": value for name, value in network(self.learn).state_dict().items()}
        if best.since:
            tensors |= {f"best/{name}": value for name, value in best.weights.items()}
        tensors |= {f"soup/{name}": value for name, value in soup.weights.items()}
        tensors |= {f"optimizer/{index}/{name}": value for index, values in self.opt.opt.state_dict()["state"].items()
                    for name, value in values.items()}
        state = {"runs": self.runs, "epochs": self.epochs, "history": best.history, "best": best.best, "since": best.since,
                 "seconds": self.spent(), "made_of": self.made_of, "saved": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        partial = self.file.with_suffix(".partial")
        with full_disk_named(self.file), contextlib.ExitStack() as stack:
            stack.callback(partial.unlink, missing_ok=True)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: torch.as_tensor(value).contiguous() for name, value in tensors.items()}, partial,
                      {"state": json.dumps(state)})
            with partial.open("rb+") as written:
                os.fsync(written.fileno())  # or a power cut after the renaming could leave an empty file
            partial.replace(self.file)

    def remove(self) -> None:
        self.file.with_suffix(".partial").unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def _differences(then: dict, now: dict, path: str = "") -> list[str]:
    """Which parts are not what they were, by name; of short values also what they were and are."""
    found = []
    for key in sorted(then.keys() | now.keys()):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{path}{key}.")
        elif old != new:
            brief = len(str(old)) + len(str(new)) < 60
            found.append(f"{path}{key} was {old}, is now {new}" if brief else f"{path}{key} has changed")
    return found
