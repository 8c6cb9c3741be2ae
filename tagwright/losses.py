"""The losses. Logits and targets (0/1, also where exactly one is 1) are both (rows, labels); every loss is summed over labels
and averaged over rows, and computed in fp32. `weights`, (labels,), weight the cells (multiclass: rows) that have the label."""

import torch
from torch.nn import functional

from tagwright.task import Training

FOCUS = 2.0  # gamma of the focal loss, the best one in its paper
NEGATIVE_FOCUS, SHIFT = 4.0, 0.05  # gamma- and m of the asymmetric loss, as its paper chose them; its gamma+ is 0


class SummedBCE:
    """Binary cross-entropy. For multilabel."""

    def __init__(self, weights: torch.Tensor | None = None):
        self.weights = weights

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        logits, targets = logits.float(), targets.float()
        given = targets
        if self.weights is not None:
            self.weights = self.weights.to(targets.device)  # once: a copy at every step would stop a GPU
            given = targets * self.weights
        loss = (given * self.positive(logits) + (1 - targets) * self.negative(logits)).sum(1)
        return loss.mean() if reduction == "mean" else loss

    def positive(self, logits: torch.Tensor) -> torch.Tensor:
        """The loss of each cell, were its label right."""
        return -functional.logsigmoid(logits)

    def negative(self, logits: torch.Tensor) -> torch.Tensor:
        """The loss of each cell, were its label wrong."""
        return -functional.logsigmoid(-logits)

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def decodes(self, logits: torch.Tensor) -> torch.Tensor:
        return logits > 0


class Focal(SummedBCE):
    """Binary cross-entropy × (1 - probability of the truth)^FOCUS, so that easy cells count for little (Lin et al., "Focal
    loss for dense object detection", ICCV 2017). Without its α: `weights` are for that. For multilabel."""

    def positive(self, logits):
        return (-logits).sigmoid() ** FOCUS * super().positive(logits)

    def negative(self, logits):
        return logits.sigmoid() ** FOCUS * super().negative(logits)


class Asymmetric(SummedBCE):
    """Focal for wrong labels only, whose probabilities are lowered by SHIFT before, so that those below it count for nothing
    (Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021). For multilabel."""

    def negative(self, logits):
        shifted = (logits.sigmoid() - SHIFT).clamp(min=0)
        return -(shifted**NEGATIVE_FOCUS) * torch.log1p(-shifted)


class CrossEntropy:
    """Cross-entropy of the softmax over labels; with `focus` × (1 - probability of the truth)^focus. For multiclass."""

    def __init__(self, weights: torch.Tensor | None = None, focus: float = 0.0):
        self.weights, self.focus = weights, focus

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        logits, targets = logits.float(), targets.float()
        loss = functional.cross_entropy(logits, targets, reduction="none")
        if self.focus:
            loss = loss * (-torch.expm1(-loss)) ** self.focus
        if self.weights is not None:
            self.weights = self.weights.to(targets.device)
            loss = loss * (targets @ self.weights)
        return loss.mean() if reduction == "mean" else loss

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(-1)

    def decodes(self, logits: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(logits.argmax(-1), logits.shape[-1]).bool()


def loss_for(kind: str, recipe: Training, label_share: torch.Tensor) -> SummedBCE | CrossEntropy:
    """The recipe's loss for a kind of task. `label_share`, (labels,), is the share of training rows that have each label, for
    the recipe's `class_weights`."""
    weights = class_weights(label_share) if recipe.class_weights else None
    if kind == "multiclass":
        return CrossEntropy(weights, focus=FOCUS if recipe.loss == "focal" else 0.0)
    return {"bce": SummedBCE, "focal": Focal, "asymmetric": Asymmetric}[recipe.loss](weights)


def class_weights(label_share: torch.Tensor) -> torch.Tensor:
    """√(median share / share), between 0.5 and 3: rare labels weigh more, but no more than their few rows can tell. The
    median is over labels that have rows."""
    median = label_share[label_share > 0].median()
    return (median / label_share).sqrt().clamp(0.5, 3.0)
