"""What a training job does: `tagwright demo`'s pipeline in the job's folder, so that one that was interrupted goes on where it
was. The new model goes into the registry, and answers from then on if it beats the active one on the same test rows.
"""

from pathlib import Path

from service.registry import Registry
from service.settings import Settings
from tagwright import metrics
from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset
from tagwright.pipeline import Folders, run_pipeline
from tagwright.promotion import score
from tagwright.stage import write_json
from tagwright.task import Task, Training


def run(folder: Path, arguments: dict, settings: Settings) -> dict:
    """Returns the fields of the job: `model`, its name in the registry, and `message`, what came of it."""
    task = Task.load(folder / "task.toml" if "rows" in arguments else arguments["task"]).with_data(arguments.get("place"))
    task = task.model_copy(update={"training": task.training.model_copy(update=arguments["settings"])})
    folders = Folders.of(task, folder / "work")
    records = run_pipeline(
        task, folders, raw_path=folder / arguments["rows"] if "rows" in arguments else None, bar=False,
        callbacks=[reporter(folder / "progress.json", task.training, task.kind)],
        promotion=lambda: promote(f"{task.name}-{folder.name[:8]}", folders.tagger, folders.dataset, Registry(settings)))
    return records["promote"]


def promote(name: str, model: Path, dataset_dir: Path, registry: Registry) -> dict:
    """Take a model in, and let it answer if it beats the one that does."""
    active, dataset = registry.state()["active"], Dataset.load(dataset_dir)
    registry.add(model, name)
    manifest = read_bundle(model)
    measure = metrics.HEADLINE[manifest.kind]
    new = score(model, dataset, "test")
    message = f"{measure.replace('micro_f1', 'micro-F1')} {new:.3f} on its test rows"
    if active in (None, name):  # its own name: the last step was done before, and only what came of it not yet told
        message += ", and it answers now"
        better = active is None
    elif (before := read_bundle(registry.folder(active))).task != manifest.task:
        message += f"; {active} is of another task, {before.task}, and goes on answering"
        better = False
    elif (old := score(registry.folder(active), dataset, "test")) is None:
        message += f"; {active} has other labels and cannot be compared, so it goes on answering"
        better = False
    else:
        better = new > old
        known = "" if before.data == manifest.data else " (it was trained on others, and may know some of these)"
        message += f", {old:.3f} for {active} on the same rows{known}; {name if better else active} answers now"
    if better:
        registry.activate(name)
    return {"model": name, "message": message}


def reporter(path: Path, training: Training, kind: str):
    from fastai.callback.core import Callback

    class Reporter(Callback):
        """Writes how many steps of the recipe are done, and the curve."""

        order = 90  # after the epoch's scores are known

        def before_fit(self):
            self.recipe = training.for_rows(len(self.dls.train_ds))

        def after_batch(self):
            if self.training and self.iter % 10 == 0:
                self.write(self.iter + 1)

        def after_epoch(self):
            self.write(len(self.dls.train))

        def write(self, of_epoch: int):
            steps = len(self.dls.train)
            epochs = self.learn.soup.runs * self.recipe.epochs + self.epoch
            keys = ("train_loss", "valid_loss", metrics.HEADLINE[kind])
            curve = [{"epoch": number} | {key: round(float(row[key]), 4) for key in keys}
                     for number, row in enumerate(self.learn.best_epoch.history, 1)]
            total = self.recipe.soup * self.recipe.epochs * steps
            write_json(path, {"done": epochs * steps + of_epoch, "total": total, "curve": curve})

    return Reporter()
