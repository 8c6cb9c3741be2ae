"""Write what PyTorch in fp32 gives to validation rows, for `npm run validation`: JSON lines of a text and its scores."""

import argparse
import json
import sys
from pathlib import Path

from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset
from tagwright.decisions import probabilities
from tagwright.errors import TagwrightError
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.training import predict


def write_reference(model_folder: Path, dataset_folder: Path, out: Path, rows: int) -> int:
    """Write at most `rows` of the validation rows, drawn by chance, the same ones each time; returns how many."""
    manifest = read_bundle(model_folder)
    frame = Dataset.load(dataset_folder, manifest.task).validation
    texts = list(frame.sample(min(rows, len(frame)), random_state=0)["text"])
    logits = predict(load_tagger_model(model_folder), load_tokenizer(model_folder), texts, manifest.max_length)
    with out.open("w", encoding="utf8") as file:
        for text, scores in zip(texts, probabilities(logits, manifest.kind), strict=True):
            exact = [float(str(score)) for score in scores]  # the shortest number that is the same in float32
            file.write(json.dumps({"text": text, "scores": exact}) + "\n")
    return len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_folder", type=Path)
    parser.add_argument("dataset_folder", type=Path, help="what `tagwright clean` wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=400, help="at most so many (default: 400)")
    arguments = parser.parse_args()
    try:
        count = write_reference(arguments.model_folder, arguments.dataset_folder, arguments.out, arguments.rows)
    except TagwrightError as error:
        sys.exit(f"error: {error}")
    print(f"{count} rows → {arguments.out}")


if __name__ == "__main__":
    main()
