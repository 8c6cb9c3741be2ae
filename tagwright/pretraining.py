"""Domain-adaptive pre-training: `pretrain()`, the stage that goes on training an encoder on a task's texts, without their
labels, by masked language modelling (Gururangan et al., "Don't stop pretraining", ACL 2020).

It writes an encoder folder that a task file can name as `model.encoder`. Only training texts are read, and of other texts
only those that are no validation or test text.
"""

import contextlib
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from tagwright.batches import MULTIPLE, by_length
from tagwright.cpu import fast_on_cpu
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.model import EncoderError, load_masked_lm, load_tokenizer
from tagwright.rows import as_dicts, read_tables, scan
from tagwright.stage import RECORD, Stage, read_record
from tagwright.task import Task
from tagwright.text import text_of, tidy
from tagwright.training import has_bf16

MASKED = 0.15  # of the tokens, as BERT's authors did
HELD_OUT = 0.05  # of the training texts, to see what is learned
LEARNING_RATE = 5e-5  # at its peak
BATCH_SIZE = 64
CHUNK_ROWS = 10_000


def pretrain(task: Task, data_dir: Path, out_dir: Path, texts: Path | None = None, epochs: int = 3, force: bool = False,
             bar: bool = True) -> dict:
    """Train the task's encoder on its training texts and those of the file `texts` (csv, tsv, jsonl or parquet with the
    task's fields, or txt: a text a line), and write it with its tokenizer to `out_dir`; returns the run record.

    A text of the file that is also a validation or test text, but for case and white space, is left out. Where the task
    names `out_dir` as its encoder, training starts from the encoder which that was made from. Raises TagwrightError where
    the data set or the file cannot be read, or the encoder cannot be had or is none that fills in masked tokens.
    """
    dataset = Dataset.load(data_dir, task.name)
    encoder = _base(task, out_dir)
    settings = {"encoder": encoder, "max_length": task.model.max_length, "epochs": epochs, "seed": task.training.seed}
    settings |= task.model_dump(include={"input"}) if texts else {}
    made_of = [data_dir, *([texts] if texts else []), *([Path(encoder)] if Path(encoder).is_dir() else [])]
    stage = Stage("pretrain", out_dir, made_of, settings)
    if not force and (record := stage.unchanged()):
        return record
    set_seed(task.training.seed)
    tokenizer = load_tokenizer(encoder)
    if tokenizer.mask_token is None:
        raise EncoderError(encoder, "its tokenizer has no token that masks another, so it cannot be trained in this way")
    gpu = torch.cuda.is_available()
    model = load_masked_lm(encoder)
    unlabelled, left_out = _unlabelled(task, dataset, texts) if texts else ([], 0)
    shuffled = dataset.train["text"].sample(frac=1, random_state=task.training.seed)
    held_out, seen = (list(part) for part in (shuffled[: max(1, round(HELD_OUT * len(shuffled)))],
                                              shuffled[max(1, round(HELD_OUT * len(shuffled))) :]))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED, pad_to_multiple_of=MULTIPLE)
    training, checking = (_tokens(tokenizer, part, task.model.max_length) for part in (seen + unlabelled, held_out))
    check = [collator([checking[index] for index in batch])  # masked once, so that losses can be compared
             for batch in by_length([len(row["input_ids"]) for row in checking], BATCH_SIZE)]
    report = Report(check, bar)
    with stage.writing() as folder:
        trainer = Trainer(model, TrainingArguments(
            str(folder), num_train_epochs=epochs, per_device_train_batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine", warmup_steps=0.1, weight_decay=0.01, bf16=has_bf16(), use_cpu=not gpu,
            train_sampling_strategy="group_by_length", dataloader_pin_memory=gpu, remove_unused_columns=False,
            seed=task.training.seed, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
        ), collator, training, callbacks=[report])
        trainer.remove_callback(PrinterCallback)
        with contextlib.nullcontext() if gpu else fast_on_cpu(model, task.model.max_length):
            trainer.train()
        model.base_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        stage.record |= {
            "rows": {"train": len(seen), "held_out": len(held_out), "file": len(unlabelled), "left_out": left_out},
            "metrics": {"held_out": {"loss_before": report.losses[0], "loss": report.losses[-1]}}, "losses": report.losses,
        }
    return stage.record


class Report(TrainerCallback):
    """A progress bar, and the loss on held-out texts before the first epoch and after each (also without a terminal)."""

    def __init__(self, check: list[dict], bar: bool):
        self.check, self.shown, self.losses = check, bar, []

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.bar = tqdm(total=state.max_steps, desc="pretrain", unit=" batches", disable=None if self.shown else True)
        self._look(model, 0)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_epoch_end(self, args, state, control, model, **kwargs):
        self._look(model, round(state.epoch))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()

    def _look(self, model: PreTrainedModel, epoch: int) -> None:
        self.losses.append(round(masked_loss(model, self.check), 4))
        if self.shown:
            self.bar.write(f"epoch {epoch}  held-out loss {self.losses[-1]:.3f}")


def masked_loss(model: PreTrainedModel, batches: list[dict]) -> float:
    """Mean cross-entropy, in nats, over the masked tokens of the collated batches."""
    total, count = 0.0, 0
    model.eval()
    for batch in batches:
        masked = int((batch["labels"] != -100).sum())
        if masked:
            with torch.inference_mode():
                output = model(**{name: value.to(model.device) for name, value in batch.items()})
            total, count = total + masked * float(output.loss), count + masked
    model.train()
    return total / max(count, 1)


def _base(task: Task, out_dir: Path) -> str:
    """The encoder to start from, which is not the one that is to be made."""
    if Path(task.model.encoder).absolute() != Path(out_dir).absolute():
        return task.model.encoder
    if not (out_dir / RECORD).is_file():
        raise TagwrightError(f"{task.file}: model.encoder names {out_dir}, which is not there yet and would be made now: name "
                             "there the encoder to start from, and the new one afterwards")
    return read_record(out_dir, f"tagwright pretrain {task.name}")["settings"]["encoder"]


def _unlabelled(task: Task, dataset: Dataset, path: Path) -> tuple[list[str], int]:
    """The file's different texts, cleaned as `clean` does, and how many validation and test texts were among them."""
    source = scan(path)
    missing = [name for name in task.input.fields if name not in source.columns]
    if source.form != "txt" and missing:
        raise TagwrightError(f"{path}: no column {missing[0]!r}, which {task.file.name} names in input.fields (it has: "
                             f"{', '.join(source.columns)})")
    known = {_key(text) for text in dataset.train["text"]}
    kept_back = {_key(text) for part in (dataset.validation, dataset.test) for text in part["text"]}
    found: dict[str, str] = {}
    with tqdm(total=source.rows, desc="read", unit=" rows", disable=None, leave=False) as bar:
        for rows in read_tables(source, CHUNK_ROWS):
            for row in as_dicts(rows.table):
                if text := tidy(row["text"]) if source.form == "txt" else text_of(row, task.input):
                    found.setdefault(_key(text), text)
            bar.update(rows.read)
    texts = [text for key, text in found.items() if key not in known and key not in kept_back]
    return texts, len(found.keys() & kept_back)


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[dict]:
    """Each text's tokens as the collator takes them."""
    found = tokenizer(texts, truncation=True, max_length=min(max_length, tokenizer.model_max_length),
                      return_special_tokens_mask=True, return_attention_mask=False, return_token_type_ids=False)
    return [{"input_ids": ids, "special_tokens_mask": special}
            for ids, special in zip(found["input_ids"], found["special_tokens_mask"], strict=True)]
