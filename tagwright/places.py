"""Where a published model can be: in a folder, on the Hugging Face hub, or in S3.

Each place gives the bytes of its manifest (`read`) and then the files that it lists (`fetch`); the hub and S3 also take a
model (`send`), with one last step that turns the old version into the new one: a commit, or the PUT of one object. All raise
TagwrightError, naming the place, for whatever goes wrong there.
"""

import base64
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from tagwright.bundle import MANIFEST, Manifest, read_manifest
from tagwright.errors import TagwrightError
from tagwright.remote import bytes_bar, s3_client, s3_errors

MAX_MANIFEST = 20_000_000  # bytes; one of 100,000 labels has about 5 million
SINGLE_PUT = 5 * 2**30  # bytes, the most that S3 takes in one PUT
KEPT = timedelta(days=1)  # how long S3 keeps files that no manifest names


def place_of(text: str) -> "Folder | Hub | Bucket":
    """The place that a text names; raises TagwrightError for an unknown scheme, or where its package is not installed."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Folder(text)
    if scheme not in REMOTE:
        raise TagwrightError(f"{text}: unknown scheme {scheme}://; give hf://user/name, s3://bucket/prefix or a folder")
    return REMOTE[scheme](text, rest.strip("/"))


class Folder:
    def __init__(self, place: str):
        self.place = place

    def read(self) -> bytes:
        file = Path(self.place) / MANIFEST
        if not file.is_file():
            raise _no_model(self.place)
        _check_size(file.stat().st_size, self.place)
        return file.read_bytes()

    def fetch(self, files: dict[str, str], target: Path) -> None:
        for name in tqdm(files, desc="copy", unit=" files", disable=None, leave=False):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(Path(self.place) / name, target / name)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
                raise TagwrightError(f"{self.place}/{name}: cannot be read: {error.strerror}") from None


class Hub:
    """A model repository. Its history keeps earlier versions, and a commit changes all files at once."""

    def __init__(self, place: str, repo: str):
        try:
            import huggingface_hub
        except ImportError:
            raise TagwrightError(f"{place}: hf:// needs huggingface_hub; pip install huggingface_hub") from None
        if repo.count("/") != 1:
            raise TagwrightError(f"{place}: a repository is named hf://user/name")
        self.place, self.repo, self.hub = place, repo, huggingface_hub
        self.api = huggingface_hub.HfApi()
        if not sys.stderr.isatty():  # a log file gets no progress bars
            huggingface_hub.utils.disable_progress_bars()
        self.revision, self.sizes = None, {}

    def read(self) -> bytes:
        with _hub_errors(self.place):
            self._look()
            if MANIFEST not in self.sizes:
                raise _no_model(self.place)
            return self._manifest()

    def fetch(self, files: dict[str, str], target: Path) -> None:
        for name in files:
            if name not in self.sizes:
                raise TagwrightError(f"{self.place}/{name}: missing from the repository; publish the model again")
        _need_space(target, sum(self.sizes[name] for name in files))
        with _hub_errors(self.place):
            for name in files:  # each with a progress bar of the hub's own
                self.hub.hf_hub_download(self.repo, name, revision=self.revision, local_dir=target)
        shutil.rmtree(target / ".cache")  # the hub's notes on its downloads

    def send(self, folder: Path, manifest: Manifest) -> None:
        with _hub_errors(self.place):
            self.api.create_repo(self.repo, exist_ok=True)
            self._look()
            former = _files_of(self._manifest()) if MANIFEST in self.sizes else {}
            gone = [name for name in former if name not in manifest.files and name in self.sizes]
            self.api.create_commit(
                self.repo,
                [self.hub.CommitOperationAdd(name, folder / name) for name in [*manifest.files, MANIFEST]]
                + [self.hub.CommitOperationDelete(name) for name in gone],
                commit_message=f"Publish {manifest.task} with tagwright",
                parent_commit=self.revision,  # refused where another commit has come meanwhile
            )

    def _look(self) -> None:
        """Settle on the newest commit, so that all that is read from now on is of one version."""
        info = self.api.model_info(self.repo, files_metadata=True)
        self.revision = info.sha
        self.sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}

    def _manifest(self) -> bytes:
        _check_size(self.sizes[MANIFEST], self.place)
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.hub.hf_hub_download(self.repo, MANIFEST, revision=self.revision, local_dir=folder)).read_bytes()


class Bucket:
    """Objects below a prefix. S3 can rename nothing, so each file lies under its checksum, `files/<sha256>`, where no other
    version can overwrite it, and `tagwright.json`, put last, says which of them are the model."""

    def __init__(self, place: str, rest: str):
        self.place, self.s3 = place, s3_client(place)
        self.bucket, _, prefix = rest.partition("/")
        self.prefix = f"{prefix}/" if prefix else ""

    def read(self) -> bytes:
        with s3_errors(self.place, str(_no_model(self.place))):
            return self._manifest()

    def fetch(self, files: dict[str, str], target: Path) -> None:
        sizes = {}
        for name, digest in tqdm(files.items(), desc="look", unit=" files", disable=None, leave=False):
            with self._errors_at(name):
                sizes[name] = self.s3.head_object(Bucket=self.bucket, Key=self._key(digest))["ContentLength"]
        _need_space(target, sum(sizes.values()))
        with bytes_bar("download", sum(sizes.values())) as bar:
            for name, digest in files.items():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                with self._errors_at(name):
                    self.s3.download_file(self.bucket, self._key(digest), str(target / name), Callback=bar.update)

    def send(self, folder: Path, manifest: Manifest) -> None:
        former = self._former()
        content = (folder / MANIFEST).read_bytes()
        paths = {digest: folder / name for name, digest in manifest.files.items()}
        with s3_errors(self.place):
            with bytes_bar("upload", sum(path.stat().st_size for path in paths.values())) as bar:
                for digest, path in paths.items():
                    self._put(digest, path, former, bar)
            self.s3.put_object(Bucket=self.bucket, Key=self.prefix + MANIFEST, Body=content, ChecksumAlgorithm="SHA256",
                               ContentType="application/json")
        with s3_errors(f"{self.place}: the model is published, but older files could not be removed"):
            self._remove_old({*manifest.files.values(), *former})

    def folders(self) -> list[str]:
        """The names right below the prefix that are prefixes of others."""
        with s3_errors(self.place):
            pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix, Delimiter="/")
            found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        return sorted(prefix.removeprefix(self.prefix).strip("/") for prefix in found)

    def get(self, name: str) -> bytes | None:
        """A small object below the prefix, None where it is not there."""
        with s3_errors(f"{self.place}/{name}"):
            try:
                reply = self.s3.get_object(Bucket=self.bucket, Key=self.prefix + name)
            except self.s3.exceptions.NoSuchKey:
                return None
            _check_size(reply["ContentLength"], f"{self.place}/{name}")
            return reply["Body"].read()

    def put(self, name: str, content: bytes) -> None:
        """Write a small JSON object below the prefix, at once."""
        with s3_errors(f"{self.place}/{name}"):
            self.s3.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content, ContentType="application/json")

    def size(self, name: str) -> int:
        """An object's size in bytes."""
        with s3_errors(f"{self.place}/{name}", f"{self.place}/{name}: missing"):
            return self.s3.head_object(Bucket=self.bucket, Key=self.prefix + name)["ContentLength"]

    def _former(self) -> set[str]:
        """The checksums of the version that is there now."""
        with s3_errors(self.place):
            try:
                return set(_files_of(self._manifest()).values())
            except self.s3.exceptions.NoSuchKey:
                return set()

    def _manifest(self) -> bytes:
        reply = self.s3.get_object(Bucket=self.bucket, Key=self.prefix + MANIFEST)
        _check_size(reply["ContentLength"], self.place)
        return reply["Body"].read()

    def _put(self, digest: str, path: Path, former: set[str], bar: tqdm) -> None:
        """Upload a file, unless it is there whole. S3 itself checks what arrives against the checksum."""
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import ClientError

        key, size = self._key(digest), path.stat().st_size
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        try:
            there = self.s3.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
        else:
            # An old file that the version there now does not name may be removed at any moment by a publish that runs beside
            # this one, as long as our manifest is not there to keep it: it is put anew, and so young again.
            safe = digest in former or datetime.now(UTC) - there["LastModified"] < KEPT / 2
            if safe and (there["ContentLength"], there.get("ChecksumSHA256")) == (size, checksum):
                bar.update(size)
                return
        self.s3.upload_file(str(path), self.bucket, key, Callback=bar.update,
                            ExtraArgs={"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": checksum},
                            Config=TransferConfig(multipart_threshold=SINGLE_PUT))

    def _remove_old(self, kept: set[str]) -> None:
        """Remove files that neither this version nor the one before it names: whoever is pulling read one of these two
        manifests, if not long ago. Young files stay as well: another publish may have put them for a manifest to come."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key("")):
            for entry in page.get("Contents", []):
                digest = entry["Key"].removeprefix(self._key(""))
                ours = re.fullmatch(r"[0-9a-f]{64}", digest)
                if ours and digest not in kept and datetime.now(UTC) - entry["LastModified"] > KEPT:
                    self.s3.delete_object(Bucket=self.bucket, Key=entry["Key"])

    def _key(self, digest: str) -> str:
        return f"{self.prefix}files/{digest}"

    def _errors_at(self, name: str) -> AbstractContextManager:
        return s3_errors(f"{self.place}/{name}", f"{self.place}: its file {name} is missing; if a newer version has just "
                                                  "replaced this one, the same command will do, else publish it again")


REMOTE = {"hf": Hub, "s3": Bucket}


def check_files(manifest: Manifest, place: str) -> None:
    """Raise TagwrightError for a file that would lie elsewhere than in the model folder, or hidden in it (.git/hooks, say),
    or that one system takes and another does not."""
    if not isinstance(manifest.files, dict):
        raise TagwrightError(f"{place}: {MANIFEST}: damaged (no list of files)")
    taken = {*manifest.files, MANIFEST}
    for name, digest in manifest.files.items():
        parts = name.split("/")
        if any(not part or part.startswith(".") for part in parts) or re.search(r'[\\:*?"<>|]', name) or not name.isprintable():
            raise TagwrightError(f"{place}: {name!r} is no safe name for a model's file")
        if any(str(parent) in taken for parent in PurePosixPath(name).parents[:-1]):  # the last is "."
            raise TagwrightError(f"{place}: {name!r} is no safe name for a model's file: a part of it is a file too")
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise TagwrightError(f"{place}: {name}: {digest!r} is no sha256")


def _files_of(content: bytes) -> dict[str, str]:
    """The files of a published manifest; none where it is damaged or of another version, which a new one may replace."""
    with suppress(TagwrightError):
        manifest = read_manifest(content, MANIFEST)
        check_files(manifest, MANIFEST)
        return manifest.files
    return {}


@contextmanager
def _hub_errors(place: str) -> Iterator[None]:
    """Make a TagwrightError of what huggingface_hub raises."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
            what = "not there, or no access to it; check the name, and log in (`hf auth login`, or a token in HF_TOKEN)"
            raise TagwrightError(f"{place}: {what} [{status}]") from None
        if status == 412:
            raise TagwrightError(f"{place}: another commit has come meanwhile; run the same command again") from None
        raise TagwrightError(f"{place}: the hub answers {status}: {error.server_message or error}") from None
    except (errors.HTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise TagwrightError(f"{place}: the hub cannot be reached: {error}") from None
    except (RuntimeError, ValueError, OSError) as error:  # of its upload threads, its storage clients, its checks of answers
        raise TagwrightError(f"{place}: {error} {error.__cause__ or ''}") from None


def _check_size(size: int, place: str) -> None:
    if size > MAX_MANIFEST:
        raise TagwrightError(f"{place}/{MANIFEST}: {size / 1e6:.0f} MB, which no manifest of ours has")


def _need_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TagwrightError(f"the model has {needed / 1e6:.0f} MB, but the disk that holds {folder.parent} has only "
                             f"{free / 1e6:.0f} MB free; free some, or name another folder")


def _no_model(place: str) -> TagwrightError:
    return TagwrightError(f"{place}: no Tagwright model (it has no {MANIFEST}); `tagwright publish` puts one there")
