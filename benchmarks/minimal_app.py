"""What `benchmarks/service.py` measures the service against: the app that takes ten lines, with FastAPI and transformers."""

import argparse
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.tagging import load_pipeline
from tagwright.bundle import read_bundle
from tagwright.tagger import cores


class Request(BaseModel):
    text: str


def create_app(folder: Path) -> FastAPI:
    """Answers the tags of one text as the labels whose scores reach their thresholds, with their scores."""
    manifest, classify, app = read_bundle(folder), load_pipeline(folder), FastAPI()
    thresholds = dict(zip(manifest.labels, manifest.thresholds, strict=True))
    torch.set_num_threads(cores())  # as many as the service takes, whatever OMP_NUM_THREADS says

    @app.post("/tags")
    def tags(request: Request) -> list[dict[str, str | float]]:
        return [found for found in classify(request.text)[0] if found["score"] >= thresholds[found["label"]]]

    @app.get("/ready")
    def ready() -> str:
        return "ready"

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(create_app(options.model), port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
