"""Labels that have no examples yet: their rows of the head, foretold from their names alone.

Serving uses this module: numpy and the standard library only. `new_labels.py` fits what it applies.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from tagwright.errors import TagwrightError

MAX_NAME = 100  # characters
DESCRIPTION_SHARE = 0.3  # of a described label's row; the rest comes from its name


@dataclass(frozen=True)
class NameHead:
    """From the embedding of a label's name to the label's row of the head: a kernel regression on known names.

    `names` (known names, hidden) are unit vectors and `weights` (known names, hidden) what each adds to `row` (hidden), the
    mean row, the more the nearer it is to the new name: exp(-d²/width) of it at the distance d. All new labels have the
    `bias` of their logits and the `threshold` of their scores in common.
    """

    names: np.ndarray
    weights: np.ndarray
    row: np.ndarray
    width: float
    bias: float
    threshold: float

    FILE: ClassVar[str] = "label_names.npz"  # in a model folder

    def rows(self, names: np.ndarray) -> np.ndarray:
        """The rows of the labels whose names have these embeddings: float32, both (labels, hidden)."""
        return (kernel(unit(names), self.names.astype(np.float32), self.width) @ self.weights + self.row).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write a `.npz` file; the two matrices in half precision, which is enough for them."""
        np.savez(path, names=self.names.astype(np.float16), weights=self.weights.astype(np.float16), row=self.row,
                 width=self.width, bias=self.bias, threshold=self.threshold)

    @classmethod
    def load(cls, path: Path) -> "NameHead":
        """Read what `save` wrote; the folder's checksums have told by then that it is whole."""
        with np.load(path, allow_pickle=False) as parts:
            return cls(parts["names"], parts["weights"].astype(np.float32), parts["row"],
                       *(float(parts[name]) for name in ("width", "bias", "threshold")))


def unit(vectors: np.ndarray) -> np.ndarray:
    """The rows scaled to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def kernel(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The Gaussian kernel of unit vectors, (rows of a, rows of b)."""
    return np.exp((2 * a @ b.T - 2) / width)


def spoken(label: str) -> str:
    """A label as people write it in a text.

    >>> spoken("slow-cooking")
    'slow cooking'
    """
    return label.replace("-", " ").replace("_", " ")


def same_name(label: str, labels: Iterable[str]) -> str | None:
    """The one of `labels` that is spelled like `label` but for case, hyphens and underscores, None where there is none."""
    return next((other for other in labels if spoken(other).casefold() == spoken(label).casefold()), None)


def check_new_labels(labels: Iterable[str] | Mapping[str, str], known: list[str]) -> dict[str, str]:
    """The new labels with their descriptions, "" where there is none.

    Raises TagwrightError for a name that is empty, too long, no line of plain text, given twice, or that of a known label.
    """
    if isinstance(labels, str):
        raise TypeError("labels must be a list of names; wrap a single one: [name]")
    names, checked = list(labels), {}
    for name in names:
        if not spoken(name).strip():
            raise TagwrightError(f"a new label's name is all that a model can go by, and {name!r} says nothing")
        if len(name) > MAX_NAME:
            raise TagwrightError(f"a label's name has at most {MAX_NAME} characters, and {name[:20] + '…'!r} has {len(name)}; "
                                 "shorten it, and put the rest into its description")
        if name != name.strip() or not name.isprintable():
            raise TagwrightError(f"the name {name!r} has spaces around it, or characters that cannot be printed")
        if twin := same_name(name, checked):
            raise TagwrightError(f"the new label {name!r} is given twice" + (f", also as {twin!r}" if twin != name else ""))
        if twin := same_name(name, known):
            raise TagwrightError(f"the model already has the label {twin!r}")
        checked[name] = labels[name] if isinstance(labels, Mapping) else ""
    return checked
