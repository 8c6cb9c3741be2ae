"""A model folder that any Tagger loads, tiny and quick: its labels are WORDS, and a text gets those that it holds; or each
word stands for a label of another name."""

import random
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from tagwright.bundle import Manifest, write_bundle

WORDS = ["salt", "rice", "bread", "fish", "eggs"]
SURE = 0.982  # the score of a word that the text holds


def make_words_model(folder: Path, label_of: dict[str, str] | None = None) -> Path:
    label_of = label_of or {word: word for word in WORDS}
    words = list(label_of)
    (folder / "onnx").mkdir(parents=True)
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: number + 2 for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = np.zeros((len(vocabulary), len(words)), dtype=np.float32)
    rows[2:] = 8 * np.eye(len(words))
    constants = [numpy_helper.from_array(rows, "rows"), numpy_helper.from_array(np.array([1]), "tokens"),
                 numpy_helper.from_array(np.array(-4, dtype=np.float32), "bias")]
    nodes = [helper.make_node("Gather", ["rows", "input_ids"], ["vectors"]),
             helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
             helper.make_node("Unsqueeze", ["mask", "two"], ["wide"]),
             helper.make_node("Mul", ["vectors", "wide"], ["real"]),
             helper.make_node("ReduceMax", ["real", "tokens"], ["found"], keepdims=0),
             helper.make_node("Add", ["found", "bias"], ["logits"])]
    constants.append(numpy_helper.from_array(np.array([2]), "two"))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
              for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(words)])
    graph = helper.make_graph(nodes, "words", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
              folder / "onnx" / "model_quantized.onnx")
    write_bundle(folder, Manifest("words", "Words", "multilabel", list(label_of.values()), [0.5] * len(words),
                                  ["title", "body"], "{title}\n\n{body}", 64, 0, "none"))
    return folder


def make_rows(count: int, seed: int = 0) -> list[dict]:
    chance = random.Random(seed)
    return [{"id": number, "title": " ".join(chance.choices([*WORDS, "with", "and"], k=chance.randint(1, 9))),
             "body": chance.choice(["", "über “bread”,\nor not"])} for number in range(count)]


def expected(row: dict) -> set[str]:
    return {word for word in WORDS if word in row["title"].split() or word in row.get("body", "")}
