"""Micro-batching: texts that arrive while a batch is running make the next one, so that under load the network sees many at
once, and a lone text waits for nothing."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from service.problems import Problem
from service.registry import Model

MAX_BATCH = 64  # texts
MAX_WAITING = 2048  # texts; more are refused, as they would be answered too late


@dataclass
class _Waiting:
    texts: Sequence[str | dict[str, str]]
    done: asyncio.Future


class Batcher:
    """One thread runs the network; everything else belongs to the event loop."""

    def __init__(self, current: Callable[[], Model | None], observe: Callable[[int], None]):
        """`current` gives the model for a batch; `observe` is told how many texts each had."""
        self.current, self.observe = current, observe
        self.waiting: deque[_Waiting] = deque()
        self.thread = ThreadPoolExecutor(1, "batch")
        self.runner: asyncio.Task | None = None

    async def scores(self, texts: Sequence[str | dict[str, str]]) -> tuple[Model, np.ndarray]:
        """The model that answered, and its scores, (texts, labels). Raises Problem: 503 where no model is active, or too many
        texts are waiting."""
        if sum(len(entry.texts) for entry in self.waiting) + len(texts) > MAX_WAITING:
            raise Problem(503, "too many texts are waiting; try again in a moment", retry_after=1)
        entry = _Waiting(texts, asyncio.get_running_loop().create_future())
        self.waiting.append(entry)
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())
        return await entry.done

    async def _run(self) -> None:
        while self.waiting:
            batch = [self.waiting.popleft()]
            while self.waiting and sum(len(entry.texts) for entry in batch) < MAX_BATCH:
                batch.append(self.waiting.popleft())
            await self._answer([entry for entry in batch if not entry.done.cancelled()])

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            model, scores = await asyncio.get_running_loop().run_in_executor(self.thread, self._score, batch)
        except Exception as error:  # noqa: BLE001 - raised again in the request that it belongs to
            if len(batch) > 1:  # the others' texts may be fine
                for entry in batch:
                    await self._answer([entry])
            elif batch and not batch[0].done.cancelled():
                batch[0].done.set_exception(error)
            return
        for entry, part in zip(batch, np.split(scores, np.cumsum([len(entry.texts) for entry in batch])[:-1]), strict=True):
            if not entry.done.cancelled():
                entry.done.set_result((model, part))

    def _score(self, batch: list[_Waiting]) -> tuple[Model, np.ndarray]:
        texts = [text for entry in batch for text in entry.texts]
        model = self.current()
        if model is None:
            raise Problem(503, "no model is active yet; activate one of /v1/models", retry_after=5)
        self.observe(len(texts))
        parts = [texts[at : at + MAX_BATCH] for at in range(0, len(texts), MAX_BATCH)]  # bounds what the tokenizer holds
        return model, np.concatenate([model.tagger.scores(part) for part in parts])
