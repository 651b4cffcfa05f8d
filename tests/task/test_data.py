from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from autopeft.core.errors import StudyError
from autopeft.task.data import Columns, Data, load_data
from autopeft.task.tables import filled_tables
from tests.minilm import MOVIES

ROWS = [
    {"text": f'sentence number {i}, quoted "so"', "label": ("dull", "fine", "None")[i % 3]}
    for i in range(60)
]
FRAME = pd.DataFrame(ROWS)


def loaded(reference: str, *given: Any, **options: Any) -> Data:
    """The splits of what a reference stands for."""
    return load_data(filled_tables(reference), *given, **options)


def write_lines(path: Path) -> None:
    path.write_text("\n".join(json.dumps(row) for row in ROWS))


FORMATS: dict[str, Callable[[Path], Any]] = {
    "data.csv": lambda path: FRAME.to_csv(path, index=False),
    "data.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "data.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "data.jsonl": write_lines,
    "data.csv.gz": lambda path: FRAME.to_csv(path, index=False),
    "data.jsonl.gz": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "data.parquet": lambda path: FRAME.to_parquet(path),
    "folder": lambda path: Dataset.from_pandas(FRAME).save_to_disk(str(path)),
}


def rows(data: Data) -> dict[str, list[dict[str, Any]]]:
    return {split: getattr(data, split).to_list() for split in ("train", "validation", "test")}


def saved(folder: Path, **columns: list[Any]) -> str:
    path = folder / "data.parquet"
    Dataset.from_dict(columns).to_parquet(str(path))
    return str(path)


def test_a_broken_gzip_file_is_told(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "data.csv.gz", index=False)
    whole = (tmp_path / "data.csv.gz").read_bytes()
    for content in (whole[:-20], b"text,label"):
        (tmp_path / "data.csv.gz").write_bytes(content)
        with pytest.raises(StudyError, match=r"^task.data: '.*data.csv.gz' cannot be read: "):
            filled_tables(str(tmp_path / "data.csv.gz"))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_splits(tmp_path: Path, name: str) -> None:
    FRAME.to_parquet(tmp_path / "wanted.parquet")
    FORMATS[name](tmp_path / name)
    data = loaded(str(tmp_path / name))
    assert rows(data) == rows(loaded(str(tmp_path / "wanted.parquet")))
    assert data.label_names == ("None", "dull", "fine")
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 6, 6)


def test_the_digest_tells_what_is_trained_on_and_not_where_it_lies(tmp_path: Path) -> None:
    def digest(frame: pd.DataFrame, **options: Any) -> str:
        frame.to_csv(tmp_path / "data.csv", index=False)
        return loaded(str(tmp_path / "data.csv"), **options).digest

    other_text, other_label = FRAME.copy(), FRAME.copy()
    other_text.loc[7, "text"] += "."
    other_label.loc[7, "label"] = "fine" if FRAME["label"][7] == "dull" else "dull"
    changed = [
        digest(other_text),
        digest(other_label),
        digest(FRAME.replace({"label": {"fine": "good"}})),
        digest(FRAME, max_train_samples=20),
        digest(FRAME, validation_fraction=0.2),
    ]
    same = digest(FRAME)
    assert same == digest(FRAME)
    assert len({same, *changed}) == 1 + len(changed)
    FRAME.to_json(tmp_path / "elsewhere.jsonl", orient="records", lines=True)
    assert loaded(str(tmp_path / "elsewhere.jsonl")).digest == same


def test_the_movie_sentences() -> None:
    data = loaded(MOVIES, max_train_samples=1024, max_eval_samples=1000)
    assert (len(data.train), len(data.validation), len(data.test)) == (1024, 1000, 1000)
    assert data.label_names == ("negative", "positive")
    assert sum(data.train["label"]) in (506, 507)
    found = [set(part["text"]) for part in (data.train, data.validation, data.test)]
    assert sum(map(len, found)) == len(set.union(*found))
    whole = loaded(MOVIES)
    assert len(whole.train) + len(whole.validation) + len(whole.test) == 10_605


def test_a_folder_of_files_is_read_by_the_names_of_the_splits(tmp_path: Path) -> None:
    FRAME[:30].to_csv(tmp_path / "train-0.csv", index=False)
    FRAME[30:40].to_csv(tmp_path / "train-1.csv", index=False)
    FRAME[40:50].to_json(tmp_path / "dev.jsonl", orient="records", lines=True)
    FRAME[50:].to_parquet(tmp_path / "test.parquet")
    (tmp_path / "README.md").write_text("Sentences.")
    data = loaded(str(tmp_path))
    assert list(data.train["text"]) == list(FRAME["text"][:40])
    assert list(data.validation["text"]) == list(FRAME["text"][40:50])
    assert list(data.test["text"]) == list(FRAME["text"][50:])


def test_class_labels_keep_their_names_and_hidden_tests_are_cut_anew(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes", "so"])})
    train = {"text": [f"{i}" for i in range(40)], "label": [0, 1] * 20}
    hidden = {"text": ["x", "y"], "label": [-1, -1]}
    DatasetDict(
        {
            "train": Dataset.from_dict(train, features=features),
            "test": Dataset.from_dict(hidden, features=features),
        }
    ).save_to_disk(str(tmp_path / "data"))
    data = loaded(str(tmp_path / "data"))
    assert data.label_names == ("no", "yes", "so")
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 4, 4)
    assert all(row["label"] == int(row["text"]) % 2 for row in data.test)


def test_parquet_keeps_class_names_and_categories(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    table = Dataset.from_dict({"text": WORDS, "label": BINARY}, features=features)
    table.to_parquet(tmp_path / "named.parquet")
    assert loaded(str(tmp_path / "named.parquet")).label_names == ("no", "yes")
    frame = pd.DataFrame({"text": WORDS, "label": pd.Categorical(["yes", "no"] * 10)})
    frame.to_parquet(tmp_path / "categories.parquet")
    assert loaded(str(tmp_path / "categories.parquet")).label_names == ("no", "yes")


SPELLED = {
    ("10", "9", "007"): ("007", "9", "10"),
    ("00", "0", "1"): ("0", "00", "1"),
    ("1.0", "1e1", "2"): ("1.0", "2", "1e1"),
    ("True", "true", "1"): ("1", "True", "true"),
    ("1", "1 "): ("1", "1 "),
    ("1" + "0" * 25, "1"): ("1", "1" + "0" * 25),
    ("nan", "None", "inf"): ("None", "inf", "nan"),
}


@pytest.mark.parametrize("labels", SPELLED)
def test_labels_keep_their_spelling_in_the_order_of_numbers(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    rows = [f"sentence {i},{labels[i % len(labels)]}" for i in range(30)]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *rows]))
    data = loaded(str(tmp_path / "data.csv"))
    assert data.label_names == SPELLED[labels]
    for row in data.train:
        place = int(row["text"].split()[1]) % len(labels)
        assert data.label_names[row["label"]] == labels[place]


def test_labels_mean_the_same_in_every_format(tmp_path: Path) -> None:
    """A table of texts beside typed values: whole numbers, truth values."""
    for spelled, typed in ((["0", "1"], [0, 1]), (["true", "false"], [True, False])):
        rows = [{"text": f"{i}", "label": spelled[i % 2]} for i in range(20)]
        pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
        lines = [json.dumps({"text": f"{i}", "label": typed[i % 2]}) for i in range(20)]
        (tmp_path / "dev.jsonl").write_text("\n".join(lines))
        data = loaded(str(tmp_path))
        assert data.label_names == tuple(sorted(spelled))
        assert all(
            data.label_names[row["label"]] == spelled[int(row["text"]) % 2]
            for row in data.validation
        )


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("named", [True, False])
def test_labels_without_training_are_refused(tmp_path: Path, split: str, named: bool) -> None:
    names = ["no", "so", "yes", "maybe"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    kind = features if named else None
    ids = {"train": [0, 2] * 10, split: [0, 1, 2, 3]}
    for name, labels in ids.items():
        columns = {"text": WORDS[: len(labels)], "label": labels}
        if not named:
            columns["label"] = [names[label] for label in labels]
        Dataset.from_dict(columns, features=kind).to_parquet(tmp_path / f"{name}.parquet")
    order = "'so', 'maybe'" if named else "'maybe', 'so'"
    reason = f"^task.label_column: the split {split!r} has labels that training lacks: {order}$"
    with pytest.raises(StudyError, match=reason):
        loaded(str(tmp_path))


def test_an_empty_text_is_the_same_in_every_format(tmp_path: Path) -> None:
    rows = [{"text": "" if i == 3 else f"{i}", "label": "ab"[i % 2]} for i in range(20)]
    pd.DataFrame(rows).to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "data.json").write_text(json.dumps(rows))
    assert loaded(str(tmp_path / "data.csv")).digest == loaded(str(tmp_path / "data.json")).digest
    for row in rows[4:6]:
        row["label"] = ""
    pd.DataFrame(rows).to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "data.json").write_text(json.dumps(rows))
    for name in ("data.csv", "data.json"):
        reason = "^task.label_column: 2 of 20 rows .* have no 'label', first row 5"
        with pytest.raises(StudyError, match=reason):
            loaded(str(tmp_path / name))


def test_a_class_label_without_a_class_is_missing(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = {"text": WORDS, "label": [-1, *BINARY[1:]]}
    Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "data"))
    with pytest.raises(StudyError, match=r"^task.label_column: 1 of 20 rows .* have no 'label'"):
        loaded(str(tmp_path / "data"))


def test_numbers_as_labels_become_ids_in_their_order(tmp_path: Path) -> None:
    texts = [f"{i}" for i in range(40)]
    data = loaded(saved(tmp_path, content=texts, target=[10.0, -1.0] * 20))
    assert data.label_names == ("-1", "10")
    assert all(row["label"] == 1 - int(row["text"]) % 2 for row in data.train)


def test_pairs_are_found_by_their_usual_names(tmp_path: Path) -> None:
    premises, labels = [f"{i}" for i in range(40)], [0, 1] * 20
    path = saved(tmp_path, premise=premises, hypothesis=premises[::-1], label=labels)
    assert loaded(path).train.column_names == ["text", "text_pair", "label"]
    alone = loaded(path, Columns(text="hypothesis"))
    assert alone.train.column_names == ["text", "label"]


WORDS = [f"{i}" for i in range(20)]
BINARY = [0, 1] * 10
WRONG: dict[str, tuple[dict[str, list[Any]], Columns, str]] = {
    "unknown text": (
        {"text": WORDS, "label": BINARY},
        Columns(text="texd"),
        r"task.text_column: unknown column 'texd'; known: label, text \(did you mean 'text'\?\)",
    ),
    "unknown pair": (
        {"text": WORDS, "label": BINARY},
        Columns(text_pair="other"),
        "task.text_pair_column: unknown column 'other'",
    ),
    "unknown label": (
        {"text": WORDS, "label": BINARY},
        Columns(label="lable"),
        "task.label_column: unknown column 'lable'",
    ),
    "no obvious text": (
        {"words": WORDS, "label": BINARY},
        Columns(),
        "task.text_column: no column is called so: name one of words, label",
    ),
    "no obvious label": (
        {"text": WORDS, "stars": BINARY},
        Columns(),
        "task.label_column: no column is called so",
    ),
    "numbers for texts": (
        {"text": BINARY, "label": BINARY},
        Columns(),
        "task.text_column: the column 'text' holds int64, not text",
    ),
    "lists for texts": (
        {"text": [WORDS] * 20, "label": BINARY},
        Columns(),
        "task.text_column: the column 'text' holds",
    ),
    "missing text": (
        {"text": [None, *WORDS[1:]], "label": BINARY},
        Columns(),
        "task.text_column: 1 of 20 rows of the split 'train' have no 'text'",
    ),
    "missing label": (
        {"text": WORDS, "label": [None, None, *BINARY[2:]]},
        Columns(),
        "task.label_column: 2 of 20 rows of the split 'train' have no 'label'",
    ),
    "nan label": (
        {"text": WORDS, "label": [float("nan"), *map(float, BINARY[1:])]},
        Columns(),
        "task.label_column: 1 of 20 rows",
    ),
    "one class": (
        {"text": WORDS, "label": ["good"] * 20},
        Columns(),
        "task.label_column: the only label is 'good'",
    ),
    "fractions": (
        {"text": WORDS, "label": [0.5, 1.5] * 10},
        Columns(),
        r"task.label_column: the labels must be names or whole numbers, got 0\.5",
    ),
    "spelled fractions": (
        {"text": WORDS, "label": ["0.5", "1"] * 10},
        Columns(),
        r"task.label_column: the labels must be names or whole numbers, got '0\.5'",
    ),
    "lists for labels": (
        {"text": WORDS, "label": [[0], [1]] * 10},
        Columns(),
        "task.label_column: the labels must be names or whole numbers",
    ),
    "empty": ({"text": [], "label": []}, Columns(), "task.data: .* has no training examples"),
}


UNREADABLE = {
    "a.csv": "",
    "b.json": "[{",
    "c.json": "[1, 2]",
    "d.json": '[{"text": "a"}, {"text": 1}]',
    "e.parquet": "no",
    "f.txt": "x",
}


@pytest.mark.parametrize("case", WRONG)
def test_unusable_data_says_what_is_wrong_with_it(tmp_path: Path, case: str) -> None:
    columns, names, reason = WRONG[case]
    with pytest.raises(StudyError, match=f"^{reason}"):
        loaded(saved(tmp_path, **columns), names)


def test_unreadable_files_are_reported(tmp_path: Path) -> None:
    for name, content in UNREADABLE.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(StudyError, match=r"^task.data: "):
            loaded(str(tmp_path / name))


def test_a_folder_needs_a_training_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^task.data: .* holds no csv, json, jsonl, parquet, tsv"):
        loaded(str(tmp_path))
    for name in ("one.csv", "two.csv"):
        FRAME.to_csv(tmp_path / name, index=False)
    with pytest.raises(StudyError, match=r"^task.data: .* begins with train: one.csv, two.csv"):
        loaded(str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_an_unreachable_hub_is_reported() -> None:
    with pytest.raises(StudyError, match=r"^task.data: 'nobody/nothing' is no local path"):
        loaded("nobody/nothing")
