"""Put together a complete Hugging Face Space: `python assemble.py MODEL_FOLDER OUT_FOLDER`.

The Space holds the app, the serving modules of the library and the int8 model, and nothing that needs torch.
"""

import dataclasses
import os
import shutil
import sys
from pathlib import Path

import tagwright
from tagwright.bundle import MANIFEST, read_bundle, write_bundle
from tagwright.errors import TagwrightError
from tagwright.tagger import FILES

APP_FILES = ["app.py", "palette.py", "cover.py", "palette_page.py", "README.md", "requirements.txt"]
SERVING_MODULES = ["__init__.py", "errors.py", "text.py", "bundle.py", "decisions.py", "label_names.py", "tagger.py", "hues.py"]
MODEL_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", FILES["int8"], "hues.json"]


def assemble(model: Path, out: Path) -> None:
    """Write the Space to `out`, replacing one that is there but for its `.git`. Raises TagwrightError where `model` is no whole
    model folder, or `out` holds something else than a Space."""
    manifest = read_bundle(model)
    if FILES["int8"] not in manifest.files:
        raise TagwrightError(f"{model}: has no {FILES['int8']}; `tagwright quantize {manifest.task}` makes it")
    if out.exists() and set(os.listdir(out)) - {".git"} and not (out / "model" / MANIFEST).is_file():
        raise TagwrightError(f"{out}: holds something else than a Space; choose another folder, or remove it")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for source, names, target in [
        (Path(__file__).parent, APP_FILES, partial),
        (Path(tagwright.__file__).parent, SERVING_MODULES, partial / "tagwright"),
        (model, [name for name in MODEL_FILES if name in manifest.files], partial / "model"),
    ]:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    write_bundle(partial / "model", dataclasses.replace(manifest))
    if (out / ".git").exists():
        (out / ".git").rename(partial / ".git")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


if __name__ == "__main__":
    try:
        assemble(Path(sys.argv[1]), Path(sys.argv[2]))
    except IndexError:
        sys.exit(__doc__)
    except TagwrightError as error:
        sys.exit(f"error: {error}")
    print(f"the Space is in {sys.argv[2]}")
