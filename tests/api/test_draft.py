"""A study file for a model and data, and what is odd about studies."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from autopeft.api import doctor as look
from autopeft.api.doctor import doctor
from autopeft.api.draft import TRIALS, draft
from autopeft.api.pace import Pace, follow
from autopeft.api.run import prepare, run
from autopeft.core.errors import AutoPeftError
from autopeft.study.spec import FidelitySection, Search, load_spec
from tests import tiny
from tests.small_models import save_decoder, save_translator, save_viewer, words_tokenizer

WORDS = ["<eos>", "<unk>", "good", "bad", "film", "a", "very"]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_study_of_a_table_is_written_and_fits(tmp_path: Path) -> None:
    rows = [(f"a very {word} film {'long ' * (i % 9)}", word) for i in range(40) for word in WORDS]
    with (tmp_path / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("review", "sentiment"), *rows])
    made = draft(tiny.MODEL, str(tmp_path / "films.csv"), hours=1)
    assert made.understood["task"] == "text-classification"
    assert made.understood["classes"] == f"7: {', '.join(sorted(WORDS)[:6])} and 1 more"
    assert made.text.startswith(f"# model: {made.understood['model']}\n")
    document = yaml.safe_load(made.text)
    assert document["name"] == "films"
    assert document["task"]["max_length"] == 24
    assert document["task"]["validation_fraction"] == 0.25
    assert TRIALS[0] <= document["search"]["n_trials"] <= TRIALS[2]
    prepared = prepare(document)
    assert 130 < len(prepared.task.load().train) < 150  # equal texts stay on one side
    assert "one trial" in made.understood


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (("comment", "stars", "id"), {"text_column": "comment", "label_column": "stars"}),
        (("review", "stars", "id"), {"label_column": "stars"}),
        (("comment", "label", "id"), {"text_column": "comment"}),
    ],
)
def test_columns_with_unusual_names_are_told_by_what_they_hold(
    columns: tuple[str, ...], told: dict[str, str], tmp_path: Path
) -> None:
    rows = [dict(zip(columns, (f"a film {i}", 1 + i % 5, i), strict=True)) for i in range(40)]
    task = yaml.safe_load(draft(tiny.MODEL, str(write(tmp_path, rows))).text)["task"]
    assert task["type"] == "text-classification"
    assert {k: v for k, v in task.items() if k.endswith("_column")} == told


def test_numbers_under_an_unusual_name_are_learned_as_numbers(tmp_path: Path) -> None:
    rows = [{"remark": f"a film {i}", "grade": i / 7} for i in range(40)]
    task = yaml.safe_load(draft(tiny.MODEL, str(write(tmp_path, rows))).text)["task"]
    assert (task["problem"], task["label_column"]) == ("regression", "grade")


def varied(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Forty rows that differ in the number that stands for `{}`."""
    return [json.loads(json.dumps(row).replace("{}", str(i))) for i in range(40)]


MESSAGES = [{"role": "user", "content": "film {}"}, {"role": "assistant", "content": "good"}]
PROMPTS = {"prompt": "a very good film {}", "completion": "good " * 9}


@pytest.mark.parametrize(
    ("row", "objectives"),
    [
        ({"messages": MESSAGES}, "exact-match-params"),
        (PROMPTS, "loss-params"),
        ({"text": "a very good film {}"}, "loss-params"),
    ],
)
def test_language_models(tmp_path: Path, row: dict[str, Any], objectives: str) -> None:
    tokenizer = words_tokenizer(WORDS)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <eos> {% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    model = save_decoder(tmp_path / "model", tokenizer, num_hidden_layers=4)
    made = draft(str(model), str(write(tmp_path, varied(row))), gpus=0, hours=0.01)
    document = yaml.safe_load(made.text)
    assert document["task"]["type"] == "causal-lm"
    assert document["objectives"] == objectives
    assert document["search"]["baselines"] == ["head-only", "lora"]


def test_translators_and_viewers_of_few_layers(tmp_path: Path) -> None:
    model = save_translator(tmp_path / "model", WORDS)
    path = write(tmp_path, varied({"document": "a very good film {}", "summary": "good film"}))
    document = yaml.safe_load(draft(str(model), str(path)).text)
    assert (document["task"]["type"], document["objectives"]) == (
        "seq2seq-lm",
        "exact-match-params",
    )
    for i in range(24):
        folder = tmp_path / "images" / "train" / ("light" if i % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (i * (i % 2) * 9,) * 3).save(folder / f"{i}.png")
    made = draft(str(save_viewer(tmp_path / "viewer")), str(tmp_path / "images"))
    assert made.understood["task"] == "image-classification"
    assert made.understood["classes"] == "2: dark, light"


@pytest.mark.parametrize(
    ("labels", "problem", "objective"),
    [
        ([i / 7 for i in range(40)], "regression", "pearson"),
        ([["a", "b"], ["b"], ["a"], ["c"]] * 10, "multi_label", "accuracy"),
    ],
)
def test_problems_are_told_by_the_labels(
    tmp_path: Path, labels: list[Any], problem: str, objective: str
) -> None:
    rows = [{"text": f"film {i}", "label": label} for i, label in enumerate(labels)]
    document = yaml.safe_load(draft(tiny.MODEL, str(write(tmp_path, rows)), gpus=1).text)
    assert document["task"]["problem"] == problem
    assert objective in str(document["objectives"])
    assert document["engine"] == {"type": "ray", "concurrency": 1, "resources": {"gpu": 1}}


def test_whatever_the_classes_are_called_they_set_no_key(tmp_path: Path) -> None:
    names = ["good", "bad\ntrust_remote_code: true\n#", "a\u2028b: {", "\x07"]
    rows = [{"text": f"film {i}", "label": names[i % 4]} for i in range(60)]
    made = draft(tiny.MODEL, str(write(tmp_path, rows)), gpus=1)
    spec = load_spec(yaml.safe_load(made.text))
    assert not spec.trust_remote_code
    comments = [line for line in made.text.splitlines() if line.startswith("#")]
    assert len([line for line in comments if "classes" in line]) == 1


def test_a_missing_label_is_told_and_makes_no_sets(tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": "good" if i % 9 else ""} for i in range(60)]
    with pytest.raises(AutoPeftError, match=r"as text-classification, .*first row 1$"):
        draft(tiny.MODEL, str(write(tmp_path, rows)))


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"a": f"film {i}", "b": i % 2, "c": i % 3} for i in range(60)]
    path = str(write(tmp_path, rows))
    with pytest.raises(AutoPeftError, match=r"label_column: no column .* --set task.label_column"):
        draft(tiny.MODEL, path)
    made = draft(tiny.MODEL, path, changes={"task.label_column": "c"})
    assert made.understood["classes"] == "3: 0, 1, 2"
    with pytest.raises(AutoPeftError, match=r"search.n_trials: init is told of the task alone"):
        draft(tiny.MODEL, path, changes={"search.n_trials": 3})


def test_two_choices_are_choices(tmp_path: Path) -> None:
    rows = [
        {"question": f"is film {i} good?", "choices": ["yes", "no"], "answer": i % 2}
        for i in range(60)
    ]
    document = yaml.safe_load(draft(tiny.MODEL, str(write(tmp_path, rows)), gpus=1).text)
    assert document["task"]["n_choices"] == 2


def test_hours_and_gpus_that_are_not_there_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": "ab"[i % 2]} for i in range(60)]
    path = str(write(tmp_path, rows))
    (told,) = (
        f.what for f in draft(tiny.MODEL, path, gpus=1, hours=1).findings if "hours" in f.what
    )
    assert told.endswith("so that the hours are not kept")
    least = [f.what for f in draft(tiny.MODEL, path, gpus=0, hours=1e-4).findings]
    assert any("more than the hours given" in what for what in least)
    with pytest.raises(AutoPeftError, match="gpus: must be a number of GPUs, got -1"):
        draft(tiny.MODEL, path, gpus=-1)


def test_what_fits_no_task_says_what_each_would_need(tmp_path: Path) -> None:
    path = write(tmp_path, varied({"messages": MESSAGES}))
    with pytest.raises(
        AutoPeftError, match=r"as text-classification, which .*: task.text_column: .*--set"
    ):
        draft(tiny.MODEL, str(path))
    with pytest.raises(AutoPeftError, match=r"no such file or folder: 'nowhere.csv'"):
        draft(tiny.MODEL, "nowhere.csv")
    with pytest.raises(AutoPeftError, match="hours: must be a positive number, got 0"):
        draft(tiny.MODEL, str(path), hours=0)


def test_what_follows_a_search_is_counted_in_trials() -> None:
    """Of the best finalist both lengths, of the others the longer one."""
    search = Search(n_trials=10, baselines=["lora", "pfeiffer"], n_finalists=2, n_seeds=3)
    fidelity = FidelitySection(epochs=2.0)
    assert follow(search, fidelity) == 3 * (1 + 2 + 3 * 2)
    pace = Pace(epoch=10.0, evaluation=1.0)
    assert pace.trial(fidelity, 1) == 21
    assert pace.study(search, fidelity, 1, workers=2) == 21 * (10 + 27) / 2
    assert follow(search.model_copy(update={"n_finalists": 0}), fidelity) == 0


def test_a_machine_has_its_facts() -> None:
    diagnosis = doctor()
    assert {"python", "packages", "cores", "memory", "gpu"} <= diagnosis.machine.keys()
    assert not diagnosis.is_ill
    assert diagnosis.study == {}


def test_what_is_odd_about_a_study_comes_with_a_remedy(tmp_path: Path) -> None:
    rows = [(f"{'very ' * 40}good film {i}", "good") for i in range(60)]
    rows += [("a bad film", "bad"), ("a worse film", "bad"), ("no film", "none")]
    study = tiny.study(tmp_path)
    tiny.write_table(tmp_path / "data.csv", rows)
    diagnosis = doctor({**study, "name": "odd"})
    told = {finding.what: finding.remedy for finding in diagnosis.findings}
    assert told["classes with a single training example: none"]
    (cut,) = (what for what in told if what.startswith("max_length 16 cuts "))
    assert re.fullmatch(r"task.max_length: 4\d holds 99 % of the texts", told[cut])
    assert any(what.endswith("so that accuracy says little") for what in told)
    assert any("validation examples tell a share only within" in what for what in told)
    assert all(told.values())
    assert "1 worker" in diagnosis.study["the study"]
    assert not diagnosis.is_ill


def test_memory_and_time_that_are_too_much_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopeft.core.host.memory", lambda: 50_000_000)
    monkeypatch.setattr(look, "LONG", 0.0)
    told = " ".join(f.what for f in doctor({**tiny.study(tmp_path), "name": "big"}).findings)
    assert "by prediction, a worker has 50 MB" in told
    assert "the study takes about" in told


def test_a_custom_task_is_looked_at_without_its_time(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def train(run):\n    yield {'quality': 1.0}\n")
    task = {"type": "custom", "function": f"{tmp_path}/mine.py:train"}
    task |= {"reports": {"quality": "maximize"}, "model_for": "text-classification"}
    objectives = [
        {"name": "quality", "goal": "maximize", "reference": 0},
        {"name": "trainable_params", "goal": "minimize", "known": True, "reference": 1e8},
    ]
    study = {**tiny.study(tmp_path), "name": "own", "task": task, "objectives": objectives}
    diagnosis = doctor(study)
    assert not diagnosis.is_ill, diagnosis.findings
    assert diagnosis.study["task"] == "custom"
    assert "the study" not in diagnosis.study


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": {"type": "ray", "resources": {"gpu": 1}, "device_memory": "80GB"}}, "no|none"),
        ({"storage": "foo"}, "foo"),
    ],
)
def test_what_a_run_refuses_doctor_refuses(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    diagnosis = doctor({**tiny.study(tmp_path), "name": "refused", **changes})
    assert diagnosis.is_ill
    assert re.search(reason, diagnosis.findings[-1].what)


def test_a_study_that_was_begun_otherwise_is_an_error(tmp_path: Path) -> None:
    study = {**tiny.study(tmp_path), "name": "begun"}
    search = {**study["search"], "n_trials": 1}
    run({**study, "search": search})
    assert not doctor(study).is_ill
    other = {**study, "task": {**study["task"], "max_length": 24}}
    assert "was begun with another task" in doctor(other).findings[-1].what


def test_what_keeps_a_study_from_running_is_an_error(tmp_path: Path) -> None:
    study = tiny.study(tmp_path)
    space = {"name": "none", "place": [{"method": "lora", "targets": ["gate"], "r": 4}]}
    diagnosis = doctor({**study, "name": "ill", "space": space})
    assert diagnosis.is_ill
    (error,) = (finding for finding in diagnosis.findings if finding.level == "error")
    assert "ill" in error.what
    assert json.loads(json.dumps(diagnosis.to_dict()))["findings"][-1]["level"] == "error"
