"""What Prometheus reads."""

import os
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.registry import Registry

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of this process, or, where PROMETHEUS_MULTIPROC_DIR names a folder, of all that share it."""

    def __init__(self, models: Registry):
        self.models, self.registry, self.shown = models, CollectorRegistry(), None
        options = {"registry": self.registry}
        self.requests = Counter("tagwright_requests", "Requests answered", ["route", "status"], **options)
        self.seconds = Histogram("tagwright_request_seconds", "Time to the answer", ["route"], buckets=SECONDS, **options)
        self.batch = Histogram("tagwright_batch_texts", "Texts in a batch of the network", buckets=TEXTS, **options)
        self.texts = Counter("tagwright_texts", "Texts tagged", **options)
        self.active = Gauge("tagwright_active_model", "1 for the model that answers", ["name", "checksum"],
                            multiprocess_mode="mostrecent", **options)

    def text(self) -> str:
        if self.models.model:
            if self.shown:
                self.active.labels(*self.shown).set(0)
            self.shown = self.models.model.identity.values()
            self.active.labels(*self.shown).set(1)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry).decode()
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together).decode()


class Measured:
    """Counts the requests of the application inside."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # never the path itself: anyone can make up any number
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)
