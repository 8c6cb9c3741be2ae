"""What a training job does. The stages are those of `tagwright demo`, in the job's folder: one that was interrupted goes on
where it was. The new model goes into the registry, and answers from then on if it beats the active one on the same test rows.
"""

from pathlib import Path

from service.registry import Registry
from service.settings import Settings
from tagwright import metrics
from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset, clean
from tagwright.pipeline import Folders
from tagwright.stage import write_json
from tagwright.tagger import Tagger
from tagwright.task import Task, Training


def run(folder: Path, arguments: dict, settings: Settings) -> dict:
    """Returns the fields of the job: `model`, its name in the registry, and `message`, what came of it."""
    task = Task.load(folder / "task.toml" if "rows" in arguments else arguments["task"]).with_data(arguments.get("place"))
    task = task.model_copy(update={"training": task.training.model_copy(update=arguments["settings"])})
    raw = folder / arguments["rows"] if "rows" in arguments else task.raw_path()
    folders = Folders.of(task, folder / "work")
    clean(task, raw, folders.dataset)
    from tagwright.evaluation import evaluate  # torch takes seconds to import: bad rows are told before
    from tagwright.onnx_export import quantize
    from tagwright.training import train

    recipe = task.training.for_rows(len(Dataset.load(folders.dataset).train))
    train(task, folders.dataset, folders.model, bar=False, callbacks=[reporter(folder / "progress.json", recipe, task.kind)])
    evaluate(task, folders.dataset, folders.model, folders.evaluation)
    quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger)
    return promote(f"{task.name}-{folder.name[:8]}", folders.tagger, folders.dataset, Registry(settings))


def promote(name: str, model: Path, dataset_dir: Path, registry: Registry) -> dict:
    """Take a model in, and let it answer if it beats the one that does."""
    active = registry.state()["active"]
    registry.add(model, name)
    measure = metrics.HEADLINE[read_bundle(model).kind]
    new = test_score(model, dataset_dir)
    message = f"{measure.replace('micro_f1', 'micro-F1')} {new:.3f} on its test rows"
    if active in (None, name):  # its own name: the last step was done before, and only what came of it not yet told
        message += ", and it answers now"
        better = active is None
    elif (old := test_score(registry.folder(active), dataset_dir)) is None:
        message += f"; {active} has other labels and cannot be compared, so it goes on answering"
        better = False
    else:
        better = new > old
        message += f", {old:.3f} for {active} on the same rows; {name if better else active} answers now"
    if better:
        registry.activate(name)
    return {"model": name, "message": message}


def test_score(model: Path, dataset_dir: Path) -> float | None:
    """What a model scores on a data set's test rows; None where its labels are not the data set's."""
    manifest, dataset = read_bundle(model), Dataset.load(dataset_dir)
    if sorted(manifest.labels) != sorted(dataset.labels):
        return None
    tagger = Tagger.load(model)
    order = [manifest.labels.index(label) for label in dataset.labels]
    scores = tagger.scores(list(dataset.test["text"]))[:, order]
    summary = metrics.summary(dataset.targets(dataset.test), scores, tagger.thresholds[order], manifest.kind)
    return summary[metrics.HEADLINE[manifest.kind]]


def reporter(path: Path, recipe: Training, kind: str):
    from fastai.callback.core import Callback

    class Reporter(Callback):
        """Writes how many steps of the recipe are done, and the curve."""

        order = 90  # after the epoch's scores are known

        def after_batch(self):
            if self.training and self.iter % 10 == 0:
                self.write(self.iter + 1)

        def after_epoch(self):
            self.write(len(self.dls.train))

        def write(self, of_epoch: int):
            steps = len(self.dls.train)
            epochs = self.learn.soup.runs * recipe.epochs + self.epoch
            keys = ("train_loss", "valid_loss", metrics.HEADLINE[kind])
            curve = [{"epoch": number} | {key: round(float(row[key]), 4) for key in keys}
                     for number, row in enumerate(self.learn.best_epoch.history, 1)]
            write_json(path, {"done": epochs * steps + of_epoch, "total": recipe.soup * recipe.epochs * steps, "curve": curve})

    return Reporter()
