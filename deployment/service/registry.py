"""The models of a service: a folder, or a prefix in S3, with one published model in each of its folders, and `active.json`,
which says which of them answers and which did so before."""

import json
import logging
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from service.settings import Settings
from tagwright.bundle import MANIFEST, Manifest, read_bundle, read_manifest
from tagwright.errors import TagwrightError
from tagwright.places import Bucket, check_files, place_of
from tagwright.publishing import publish, pull
from tagwright.stage import write_json
from tagwright.tagger import FILES, Tagger

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ACTIVE = "active.json"
LOOK_AGAIN = 30.0  # seconds after which one that was refused is loaded again: reading it takes a core's time
log = logging.getLogger(__name__)


class UnknownModel(TagwrightError):
    """There is no model of this name."""


@dataclass
class Model:
    """A model that answers."""

    name: str
    tagger: Tagger

    @property
    def identity(self) -> dict[str, str]:
        return {"name": self.name, "checksum": self.tagger.manifest.checksum}


class Registry:
    """Safe to use from several threads and processes; the files are the truth."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._files = _InS3(settings) if "://" in settings.models else _InFolder(Path(settings.models))
        self._lock = threading.Lock()
        self.model: Model | None = None  # that answers
        self._refused: dict[str | None, str] = {}  # name -> why it could not be loaded
        self._put_off: tuple[str | None, float] = (None, 0.0)  # the one that was refused last, and until when

    def names(self) -> list[str]:
        return [name for name in self._files.names() if NAME.fullmatch(name)]

    def state(self) -> dict[str, str | None]:
        """`active` and `previous`: the names of models, or None."""
        try:
            state = json.loads(self._files.read(ACTIVE) or b"{}")
        except ValueError as error:
            raise TagwrightError(f"{self.settings.models}/{ACTIVE}: damaged ({error}); activate a model again") from None
        return {key: state.get(key) for key in ("active", "previous")}

    def manifest(self, name: str) -> Manifest:
        """Raises UnknownModel, or TagwrightError for a manifest that is damaged."""
        content = self._files.read(f"{name}/{MANIFEST}") if NAME.fullmatch(name) else None
        if content is None:
            raise UnknownModel(f"there is no model {name[:100]!r}; there are: {', '.join(self.names()) or 'none yet'}")
        manifest = read_manifest(content, f"{name}/{MANIFEST}")
        check_files(manifest, name)
        return manifest

    def folder(self, name: str) -> Path:
        """A local folder with the whole model, its checksums verified."""
        return self._files.folder(name, self.manifest(name))

    def add(self, folder: Path, name: str) -> Manifest:
        """Take a model in, whole or not at all."""
        if not NAME.fullmatch(name):
            raise TagwrightError(f"{name!r}: a model's name is made of a-z, 0-9, '.', '_' and '-', at most 64 of them")
        return publish(folder, f"{self.settings.models.rstrip('/')}/{name}")

    def load(self, name: str) -> Model:
        """Raises TagwrightError for a model that is corrupt or that this version cannot run."""
        manifest = self.manifest(name)
        formats = [form for form in ("int8", "q4", "fp32") if FILES[form] in manifest.files]
        if not formats:
            raise TagwrightError(f"{name}: has no ONNX file; `tagwright quantize` writes them")
        folder = self.folder(name)
        try:
            tagger = Tagger.load(folder, formats[0], self.settings.threads)
            shape = tagger.scores(["Does it answer?"]).shape
        except Exception as error:  # noqa: BLE001 - for files of another version the libraries have no exception in common
            reason = " ".join(str(error).replace(f"{folder}/", "").split())
            raise TagwrightError(f"{name}: cannot be run: {reason}") from error
        if shape != (1, len(manifest.labels)):
            raise TagwrightError(f"{name}: cannot be run: {shape[1]} scores for {len(manifest.labels)} labels")
        return Model(name, tagger)

    def activate(self, name: str) -> Model:
        """From now on this model answers, here at once and in other processes at their next `refresh`. Where it cannot be
        loaded, TagwrightError is raised and nothing changes."""
        model = self.load(name)
        with self._lock:
            try:
                before = self.state()
            except TagwrightError:  # damaged; this is what mends it
                before = {"active": None, "previous": None}
            previous = before["active"] if before["active"] != name else before["previous"]
            self._files.write(ACTIVE, {"active": name, "previous": previous})
            self.model = model
            self._refused.pop(name, None)
        return model

    def refresh(self) -> None:
        """Look which model is active, and load it where it is another one now; one that cannot be loaded is refused, and the
        one before goes on."""
        with self._lock:
            name = None
            try:
                name = self.state()["active"]
                if name == self._put_off[0] and time.monotonic() < self._put_off[1]:
                    return
                if name and self._is_new(name):
                    self.model = self.load(name)
                    self._refused.pop(name, None)
            except (TagwrightError, OSError) as error:
                if self._refused.get(name) != str(error):
                    log.error("model %s is refused: %s", name, error)
                self._refused[name] = str(error)
                self._put_off = (name, time.monotonic() + LOOK_AGAIN) if name else (None, 0.0)

    def _is_new(self, name: str) -> bool:
        now = self.model
        return now is None or (name, self.manifest(name).checksum) != (now.name, now.tagger.manifest.checksum)

    def entry(self, name: str, state: dict[str, str | None]) -> dict:
        """A model as the API shows it; `refused` says why it could not be activated."""
        try:
            manifest = self.manifest(name)
        except UnknownModel:
            raise
        except TagwrightError as error:
            return {"name": name, "title": name, "kind": None, "labels": 0, "bytes": 0, "checksum": None, "metrics": {},
                    "active": name == state["active"], "refused": str(error), "fields": [], "examples": []}
        return {"name": name, "title": manifest.title, "kind": manifest.kind, "labels": len(manifest.labels),
                "bytes": self._files.size(name, manifest), "checksum": manifest.checksum, "metrics": manifest.metrics,
                "active": name == state["active"], "refused": self._refused.get(name), "fields": manifest.fields,
                "examples": manifest.examples}


class _InFolder:
    def __init__(self, root: Path):
        self.root = root

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.root.glob(f"*/{MANIFEST}"))

    def read(self, name: str) -> bytes | None:
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, values: dict) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.root / name, values)

    def folder(self, name: str, manifest: Manifest) -> Path:
        read_bundle(self.root / name)
        return self.root / name

    def size(self, name: str, manifest: Manifest) -> int:
        path = self.root / name / FILES["int8"]
        return path.stat().st_size if path.is_file() else 0


class _InS3:
    def __init__(self, settings: Settings):
        self.root, self.cache = settings.models.rstrip("/"), settings.data / "cache"
        place = place_of(self.root)
        if not isinstance(place, Bucket):
            raise TagwrightError(f"{self.root}: the models can be in a folder or in s3://bucket/prefix")
        self.place = place

    def names(self) -> list[str]:
        return self.place.folders()

    def read(self, name: str) -> bytes | None:
        return self.place.get(name)

    def write(self, name: str, values: dict) -> None:
        self.place.put(name, json.dumps(values).encode())

    def folder(self, name: str, manifest: Manifest) -> Path:
        target = self.cache / f"{name}-{manifest.checksum[:16]}"
        if not (target / MANIFEST).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            pull(f"{self.root}/{name}", target)
        read_bundle(target)
        return target

    def size(self, name: str, manifest: Manifest) -> int:
        digest = manifest.files.get(FILES["int8"])
        return self.place.size(f"{name}/files/{digest}") if digest else 0
