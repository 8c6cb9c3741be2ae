"""Task files: what is accepted, what is refused and how the refusal reads."""

import pytest
from conftest import ROOT, write_task

from tagwright.errors import TagwrightError
from tagwright.task import Task

SHIPPED = sorted(file.stem for file in (ROOT / "tasks").glob("*.toml"))


def refusal(file) -> str:
    with pytest.raises(TagwrightError) as error:
        Task.load(file)
    return str(error.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tasks_load_by_name_and_by_path(name):
    task = Task.load(name)
    assert task == Task.load(ROOT / "tasks" / f"{name}.toml")
    assert task.name == name
    assert task.title


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tasks_have_examples_of_their_own_fields(name):
    task = Task.load(name)
    assert task.demo.examples
    assert all(set(example) <= set(task.input.fields) for example in task.demo.examples)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tasks_say_whose_their_rows_are(name):
    source = Task.load(name).source
    assert source.attribution
    assert source.licence


def test_an_example_with_a_field_of_another_task_is_refused(tmp_path):
    file = write_task(tmp_path, "rows.jsonl", demo={"examples": []})
    file.write_text(file.read_text().replace("examples = []", 'examples = [{ text = "a" }, { titel = "b" }]'))
    with pytest.raises(TagwrightError, match=r"example 2 has the field 'titel', which is not in input.fields \(text\)"):
        Task.load(file)


def test_both_first_tasks_are_shipped():
    assert {"scifi", "cooking"} <= set(SHIPPED)


def test_only_what_differs_from_the_defaults_need_be_written(tmp_path):
    task = Task.load(write_task(tmp_path, "rows.csv"))
    assert (task.name, task.input.fields, task.labels.field, task.split.by) == ("books", ["text"], "tags", "stratified")


@pytest.mark.parametrize(("section", "wrong", "right"), [
    ("source", "pth", "path"), ("input", "feilds", "fields"), ("labels", "min_row", "min_rows"),
    ("split", "validaton", "validation"), ("model", "encodr", "encoder"), ("training", "epoch", "epochs"),
    ("demo", "exmples", "examples"),
])
def test_unknown_key_in_a_section_is_refused_with_the_nearest(tmp_path, section, wrong, right):
    message = refusal(write_task(tmp_path, "rows.csv", **{section: {wrong: 1}}))
    assert f"{section}.{wrong}: unknown key; did you mean {right!r}?" in message
    assert "books.toml" in message


@pytest.mark.parametrize(("line", "meant"), [
    ('knd = "multilabel"', "did you mean 'kind'?"), ("[trainig]", "did you mean 'training'?"),
    ("zzz = 1", "valid: name, title, kind"),
])
def test_unknown_key_at_the_top_is_refused(tmp_path, line, meant):
    file = write_task(tmp_path, "rows.csv")
    file.write_text(f"{line}\n" + file.read_text() if "=" in line else file.read_text() + f"{line}\n")
    assert meant in refusal(file)


def test_the_name_of_an_internal_field_is_an_unknown_key_too(tmp_path):
    file = write_task(tmp_path, "rows.csv")
    file.write_text('file = "x"\n' + file.read_text())
    assert "file: unknown key" in refusal(file)


@pytest.mark.parametrize(("section", "key", "value"), [
    ("training", "epochs", "three"), ("training", "epochs", 0), ("training", "epochs", 2.5), ("training", "batch_size", -1),
    ("training", "encoder_lr", -1.0), ("training", "head_init", "zeros"), ("labels", "min_share", 2), ("labels", "min_rows", 0),
    ("labels", "most_telling", 0), ("labels", "hues", "guessed"),
    ("labels", "format", "xml"), ("split", "near_duplicate", 0), ("split", "test", 0.6), ("split", "validation", 0),
    ("split", "by", "hash"), ("model", "max_length", 4), ("model", "pooling", "max"), ("source", "format", "xlsx"),
    ("input", "fields", "text"), ("labels", "names", ["World"]), ("source", "columns", "text"), ("demo", "examples", ["text"]),
])
def test_wrong_types_and_ranges_are_refused_naming_the_key(tmp_path, section, key, value):
    message = refusal(write_task(tmp_path, "rows.csv", **{section: {key: value}}))
    assert f"books.toml: {section}.{key}" in message


def test_every_fault_is_told_at_once(tmp_path):
    message = refusal(write_task(tmp_path, "rows.csv", training={"epochs": 0}, labels={"min_row": 1}))
    assert "training.epochs" in message
    assert "labels.min_row" in message


@pytest.mark.parametrize("name", ['"Sci Fi"', '"../books"', '""', "7"])
def test_a_name_must_be_fit_for_a_folder(tmp_path, name):
    file = write_task(tmp_path, "rows.csv")
    file.write_text(file.read_text().replace('"books"', name))
    assert ": name: " in refusal(file)


@pytest.mark.parametrize("missing", ["name", "title", "path"])
def test_a_required_key_is_missed(tmp_path, missing):
    file = write_task(tmp_path, "rows.csv")
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith(f"{missing} =")))
    assert f"{missing}: Field required" in refusal(file)


@pytest.mark.parametrize(("keys", "told"), [
    ({"fields": ["title"], "template": "{title} {body}"}, "the same"),
    ({"fields": ["title", "body"], "template": "{title}"}, "the same"),
    ({"fields": ["title"], "template": "{}"}, "the same"),
    ({"fields": ["title"], "template": "{title"}, "input"),
    ({"fields": ["title"], "template": "{title:d}"}, "input"),
    ({"fields": ["title"], "template": "{title}", "html": ["body"]}, "html names ['body']"),
    ({"fields": ["title"], "template": "{title}", "damaged_html": ["body"]}, "damaged_html names ['body']"),
    ({"fields": ["title"], "template": "{title}", "html": ["title"], "damaged_html": ["title"]}, "both name ['title']"),
])
def test_template_fields_and_html_must_agree(tmp_path, keys, told):
    assert told in refusal(write_task(tmp_path, "rows.csv", input=keys))


def test_a_split_by_position_needs_its_rows(tmp_path):
    assert "test_rows" in refusal(write_task(tmp_path, "rows.csv", split={"by": "position"}))


@pytest.mark.parametrize("tables", [{"split": {"by": "file"}}, {"source": {"test_path": "test.csv"}},
                                    {"source": {"test_path": "test.csv"}, "split": {"by": "position", "test_rows": 9}}])
def test_a_test_file_and_a_split_by_file_go_together(tmp_path, tables):
    assert 'split.by = "file" and source.test_path go together' in refusal(write_task(tmp_path, "rows.csv", **tables))


def test_the_kind_is_one_of_two(tmp_path):
    assert Task.load(write_task(tmp_path, "rows.csv", kind="multiclass")).kind == "multiclass"
    assert "kind: Input should be 'multilabel' or 'multiclass'" in refusal(write_task(tmp_path, "rows.csv", kind="multitask"))


@pytest.mark.parametrize(("name", "meant"), [("scfi", "'scifi'"), ("cookin", "'cooking'")])
def test_unknown_task_suggests_the_nearest(name, meant):
    message = refusal(name)
    assert f"unknown task {name!r}: did you mean {meant}?" in message
    assert all(known in message for known in SHIPPED)


@pytest.mark.parametrize("name", ["zzzzzz", "", "tasks", "a\0b", "x" * 300], ids=lambda name: name[:10])
def test_unknown_task_without_a_near_one_lists_the_known(name):
    message = refusal(name)
    assert "did you mean" not in message
    assert f"Known tasks: {', '.join(SHIPPED)}" in message


def test_a_path_that_is_not_there_is_told_as_a_path():
    assert "nowhere/books.toml: no such task file" in refusal("nowhere/books.toml")


@pytest.mark.parametrize("content", [b"name = ", b"{'name': 1}", b"\xff\xfe", b"name = 'a'\nname = 'b'\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path, content):
    file = tmp_path / "books.toml"
    file.write_bytes(content)
    assert "not a readable TOML file" in refusal(file)


def test_raw_file_is_looked_for_in_four_places_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGWRIGHT_SHARED_DATA", str(tmp_path / "shared"))
    project = tmp_path / "project"
    places = [project / "tasks", project, project / "data" / "raw", tmp_path / "shared"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / "rows.csv").touch()
    task = Task.load(write_task(project / "tasks", "rows.csv"))
    for place in places:
        assert task.raw_path() == place / "rows.csv"
        (place / "rows.csv").unlink()
    with pytest.raises(TagwrightError) as error:
        task.raw_path()
    message = str(error.value)
    assert "source.path: no such file" in message
    found = [message.index(str(place / "rows.csv")) for place in places]
    assert found == sorted(found)


def test_a_missing_raw_file_that_cannot_be_downloaded_is_told_with_both_places(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGWRIGHT_RAW", str(tmp_path / "raw"))
    task = Task.load(write_task(tmp_path, "rows.csv", source={"url": "http://127.0.0.1:9/rows.csv"}))
    with pytest.raises(TagwrightError, match="no such file; looked for .*; http://127.0.0.1:9/rows.csv: cannot be downloaded"):
        task.raw_path()


def test_the_test_file_is_looked_for_as_the_raw_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGWRIGHT_SHARED_DATA", str(tmp_path / "shared"))
    (tmp_path / "shared" / "news").mkdir(parents=True)
    (tmp_path / "shared" / "news" / "test.csv").touch()
    source = {"test_path": "news/test.csv"}
    task = Task.load(write_task(tmp_path, "rows.csv", source=source, split={"by": "file"}))
    assert task.test_path() == tmp_path / "shared" / "news" / "test.csv"
    (tmp_path / "shared" / "news" / "test.csv").unlink()
    with pytest.raises(TagwrightError, match="source.test_path: no such file"):
        task.test_path()
    assert Task.load(write_task(tmp_path, "rows.csv")).test_path() is None


def test_a_task_outside_the_project_finds_the_file_beside_it(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.csv").touch()
    file = write_task(tmp_path / "mine", "rows.csv")
    monkeypatch.chdir(tmp_path)
    assert Task.load("mine/books.toml").raw_path() == file.parent / "rows.csv"
    monkeypatch.chdir(tmp_path / "mine")
    assert Task.load("books.toml").raw_path() == file.parent / "rows.csv"


def test_an_absolute_path_is_taken_as_it_is(tmp_path):
    raw = tmp_path / "elsewhere" / "rows.csv"
    raw.parent.mkdir()
    raw.touch()
    assert Task.load(write_task(tmp_path, str(raw))).raw_path() == raw


def test_colours_as_labels_are_for_tasks_with_several_labels(tmp_path):
    with pytest.raises(TagwrightError, match='labels.hues = "predicted" is for tasks whose kind is "multilabel"'):
        Task.load(write_task(tmp_path, "rows.jsonl", kind="multiclass", labels={"hues": "predicted"}))
    assert Task.load(write_task(tmp_path, "rows.jsonl", kind="multiclass", labels={"hues": "mapped"})).labels.hues == "mapped"


def test_a_required_field_is_one_of_the_fields(tmp_path):
    with pytest.raises(TagwrightError, match=r"required names \['blurb'\], which fields does not list"):
        Task.load(write_task(tmp_path, "rows.jsonl", input={"required": ["blurb"]}))
