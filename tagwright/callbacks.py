"""The fastai callbacks of a training: precision, R-Drop, seeds, scores and the best epoch, the soup of runs, progress."""

import contextlib
import copy

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import LRFinder
from fastai.distributed import DistributedDL
from fastai.learner import AvgSmoothLoss, Learner
from fastai.torch_core import maybe_gather, rank_distrib, set_seed
from fastcore.basics import patch
from tqdm.auto import tqdm

from tagwright import metrics
from tagwright.model import TaggerModel

EPOCH_SCORES = {"multilabel": ("micro_f1", "p_at_1", "r_at_5"), "multiclass": ("accuracy", "macro_f1")}


def network(learner: Learner) -> TaggerModel:
    """The network itself, also while it is wrapped for several processes."""
    return getattr(learner.model, "module", learner.model).hf_model


@patch
def _broadcast(self: DistributedDL, indices: list[int], rank: int) -> list[int]:
    """The order of rows, as process `rank` has it; fastai's own method does this on CUDA devices only."""
    indices = torch.tensor(indices, device=self.device)
    torch.distributed.broadcast(indices, rank)
    return indices.tolist()


class BF16(Callback):
    """bfloat16 autocast on whatever device the model is on; fastai's own MixedPrecision knows CUDA only."""

    order = 10  # after blurr's callback has taken the logits out of the model's output

    def __init__(self):
        self.open = contextlib.ExitStack()

    def before_batch(self):
        self.open.enter_context(torch.autocast(self.dls.device.type, dtype=torch.bfloat16))

    def after_pred(self):
        self.learn.pred = self.pred.float()

    def after_loss(self):
        self.close()

    def close(self) -> None:
        """End the autocast, also after an error in the middle of a batch, of which fastai tells its callbacks nothing."""
        self.open.close()


class RDrop(Callback):
    """R-Drop (Liang et al., "R-Drop: regularized dropout for neural networks", NeurIPS 2021): each training row goes through
    the network twice, with other dropout, and `weight` × the divergence of the two outcomes joins the loss: half of the sum
    of their Kullback-Leibler divergences to each other, over labels for multilabel. It doubles the cost of a step."""

    def __init__(self, weight: float):
        self.weight = weight

    def before_batch(self):
        if self.training:
            self.learn.xb = ({name: torch.cat([value, value]) for name, value in self.xb[0].items()},)
            self.learn.yb = tuple(torch.cat([targets, targets]) for targets in self.yb)

    def after_loss(self):
        if self.training:
            first, second = self.pred.float().chunk(2)
            # Of two softmaxes, as of two sigmoids, the sum of both divergences is Σ (p - q) · (logit of p - logit of q).
            both = (self.loss_func.activation(first) - self.loss_func.activation(second)) * (first - second)
            self.learn.loss_grad = self.loss_grad + self.weight / 2 * both.sum(1).mean()


class SmoothLoss(AvgSmoothLoss):
    """fastai's running mean of the loss, left on the device: fastai's own fetches it at every step, for which a GPU stops."""

    def accumulate(self, learn):
        self.count += 1
        loss = learn.loss.detach().as_subclass(torch.Tensor).float()
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


class EpochSeed(Callback):
    """Each epoch's order and dropout come from the seed and the numbers of run and epoch alone, not from the epochs before
    it, so that a resumed training goes on as an undisturbed one would."""

    def __init__(self, seed: int):
        self.seed = seed

    def before_epoch(self):
        seed = int(np.random.SeedSequence([self.seed, self.learn.soup.runs, self.epoch]).generate_state(1)[0])
        set_seed(seed)
        torch.manual_seed(seed + rank_distrib())  # each process drops other cells; the order of rows is that of all
        self.recorder.smooth_loss.reset()


class BestEpoch(Callback):
    """Scores the validation rows after each epoch, keeps the best epoch's weights, and stops after `patience` worse ones
    (None: never).

    The weights are kept in memory: fastai's SaveModelCallback writes a pickle. Several processes gather the scores of all
    rows, so that they decide alike.
    """

    order = 60

    def __init__(self, patience: int | None, kind: str):
        self.patience, self.kind = patience, kind
        self.history, self.best, self.since, self.weights = [], -1.0, 0, None

    def before_fit(self):
        self.best, self.since = -1.0, 0

    def before_validate(self):
        self.logits, self.targets = [], []

    def after_batch(self):
        if not self.training:
            self.logits.append(self.pred.detach().float())
            self.targets.append(self.yb[0])

    def after_validate(self):
        # fastai repeats rows where they cannot be dealt out evenly, at the end
        rows = len(self.dls.valid_ds)
        logits, targets = (maybe_gather(torch.cat(parts).as_subclass(torch.Tensor))[:rows].cpu()
                           for parts in (self.logits, self.targets))
        losses = {"train_loss": float(maybe_gather(self.recorder.smooth_loss.value)),
                  "valid_loss": float(self.loss_func(logits, targets))}
        targets, scores = targets.numpy(), metrics.probabilities(logits.numpy(), self.kind)
        found = metrics.summary(targets, scores, metrics.best_threshold(targets, scores, self.kind), self.kind)
        place = {"run": self.learn.soup.runs + 1, "epoch": self.epoch + 1}
        self.history.append(place | losses | {key: found[key] for key in EPOCH_SCORES[self.kind]})
        if found[metrics.HEADLINE[self.kind]] > self.best:
            self.best, self.since = found[metrics.HEADLINE[self.kind]], 0
            weights = network(self.learn).state_dict()
            self.weights = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
        else:
            self.since += 1

    def after_epoch(self):
        if self.patience and self.since >= self.patience:
            raise CancelFitException()

    def after_fit(self):
        if self.weights is not None:
            network(self.learn).load_state_dict(self.weights)
            self.weights = None


class Soup(Callback):
    """The mean of the weights that several runs end with, all from the same start but with other orders and dropout: a
    uniform soup (Wortsman et al., "Model soups", 2022). It scores like an ensemble and costs one model to serve.

    `runs` have been mixed into `weights` so far.
    """

    order = 61  # after BestEpoch has put the best epoch's weights back

    def __init__(self):
        self.runs, self.weights = 0, {}

    def after_fit(self):
        self.runs += 1
        for name, value in network(self.learn).state_dict().items():
            value = value.detach().to("cpu", torch.float32, copy=True)
            self.weights[name] = self.weights[name].lerp_(value, 1 / self.runs) if self.runs > 1 else value


class Progress(Callback):
    """A bar over each run, and a line for each epoch (also where there is no terminal for a bar)."""

    order = 62  # after BestEpoch has scored the epoch

    def before_fit(self):
        self.bar = tqdm(total=self.n_epoch * len(self.dls.train), desc=f"train, run {self.learn.soup.runs + 1}",
                        unit=" batches", disable=None)

    def before_train(self):
        self.bar.update(self.epoch * len(self.dls.train) - self.bar.n)  # also past the epochs of an interrupted run

    def after_batch(self):
        if self.training and self.bar.update():  # shown just now, and not at every batch: to read the loss stops a GPU
            self.bar.set_postfix(loss=f"{float(self.smooth_loss):.3f}", refresh=False)

    def after_validate(self):
        row = self.learn.best_epoch.history[-1]
        self.bar.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))

    def after_fit(self):
        self.bar.close()


class InMemoryLRFinder(LRFinder):
    """fastai's LRFinder with the weights kept in memory instead of in a pickle."""

    def before_fit(self):
        super(LRFinder, self).before_fit()
        self.weights = copy.deepcopy(self.model.state_dict())
        self.best_loss = float("inf")

    def after_fit(self):
        self.model.load_state_dict(self.weights)
        self.learn.opt.clear_state()
        self.learn.opt = None
