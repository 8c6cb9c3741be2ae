"""A model folder goes out to another folder, the Hugging Face hub or S3, and comes back, all or nothing.

Only what the manifest lists travels, and the manifest. Whatever ends a `publish` or a `pull` before its last step (a
renaming, a commit, the PUT of one object) leaves the version that was there whole. Credentials are found as huggingface_hub
and boto3 find them, and are never arguments.
"""

from pathlib import Path

from tagwright.bundle import MANIFEST, Manifest, read_bundle, read_manifest
from tagwright.errors import TagwrightError
from tagwright.places import Folder, check_files, place_of
from tagwright.stage import recover, replacing


def publish(folder: Path, to: str) -> Manifest:
    """Publish a model folder to `hf://user/name`, `s3://bucket/prefix` or a folder; returns its manifest.

    Raises TagwrightError where the model folder is not whole, for another scheme, and where the place cannot be reached or
    written.
    """
    folder = Path(folder).resolve()
    recover(folder)
    manifest = read_bundle(folder)
    check_files(manifest, str(folder))
    place = place_of(to)
    if not isinstance(place, Folder):
        place.send(folder, manifest)
    elif Path(to).resolve() == folder:
        raise TagwrightError(f"{to}: that is the model folder itself; name another place")
    else:
        pull(str(folder), Path(to))
    return manifest


def pull(source: str, folder: Path) -> Manifest:
    """Fetch a published model into `folder`, which appears, or changes, only when all of it is there and every checksum
    fits; returns its manifest.

    Raises TagwrightError where `source` cannot be read or is no whole Tagwright model, and where `folder` holds anything else
    than a model.
    """
    place, folder = place_of(source), Path(folder).resolve()
    recover(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise TagwrightError(f"{folder}: there already, and no model folder; it is not replaced, so name another")
    with replacing(folder) as partial:
        content = place.read()
        manifest = read_manifest(content, f"{source}/{MANIFEST}")
        check_files(manifest, source)
        place.fetch(manifest.files, partial)
        (partial / MANIFEST).write_bytes(content)
        try:
            read_bundle(partial)
        except TagwrightError as error:
            raise TagwrightError(f"{source}: {str(error).replace(f'{partial}/', '')}") from None
    return manifest
