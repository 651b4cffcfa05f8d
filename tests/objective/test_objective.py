from __future__ import annotations

import math
from pathlib import Path

import pytest

from autopeft.core import catalog
from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective, load_objectives
from autopeft.objective.quantity import KNOWN

ACCURACY = {"name": "accuracy", "goal": "maximize", "reference": 0}
PARAMS = {
    "name": "trainable_params",
    "goal": "minimize",
    "known": True,
    "scale": "log",
    "reference": 1e8,
}


def test_a_better_value_has_a_smaller_loss() -> None:
    assert Objective("a", "maximize").loss(0.9) < Objective("a", "maximize").loss(0.8)
    assert Objective("a", "minimize", scale="log").loss(0) == 0
    assert Objective("a", "minimize", scale="log").loss(999) == pytest.approx(3)
    assert math.isnan(Objective("a", "minimize", scale="log").loss(-1))


@pytest.mark.parametrize("name", catalog.names("objectives"))
def test_every_document_of_the_catalog_loads(name: str) -> None:
    objectives = load_objectives(name)
    assert len(objectives) >= 2
    assert all(objective.known == (objective.name in KNOWN) for objective in objectives)


def test_the_catalog_holds_the_three_standard_sets() -> None:
    memory = load_objectives("accuracy-params-memory")
    assert [o.name for o in memory] == ["accuracy", "trainable_params", "peak_memory"]
    assert [o.reference for o in memory] == [0, 1e8, 1e11]
    assert [o.unit for o in memory] == ["", "parameters", "bytes"]
    assert {"accuracy-params", "accuracy-memory"} <= set(catalog.names("objectives"))


def test_a_name_a_path_a_mapping_and_a_list_mean_the_same() -> None:
    path = catalog.find("objectives", "accuracy-params")
    from_name = load_objectives("accuracy-params")
    assert load_objectives(path) == load_objectives(str(path)) == from_name
    items = [{**ACCURACY, "within": 0.02}, PARAMS]
    assert load_objectives(items) == from_name
    assert load_objectives({"name": "mine", "objectives": items}) == from_name


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "objectives: should have at least 1 item"),
        ([3], r"objectives\[0\]: expected a mapping, got 3"),
        ([{**ACCURACY, "goal": "maximise"}], r"objectives\[0\].goal: .*did you mean 'maximize'"),
        ([{**ACCURACY, "golas": 1}], r"objectives\[0\]: unknown key 'golas'.*did you mean 'goal'"),
        ([{**ACCURACY, 5: 1}], r"objectives\[0\]: unknown key '5'; known: goal, known, name"),
        ([{"name": "accuracy", "goal": "maximize"}], r"objectives\[0\].reference: is missing"),
        ([ACCURACY, ACCURACY], r"objectives\[1\].name: 'accuracy' stands twice"),
        ([{**ACCURACY, "known": True}], r"known: unknown known objective 'accuracy'"),
        ([{**ACCURACY, "known": "yes"}], "known: should be a valid boolean, got 'yes'"),
        ([{**ACCURACY, "scale": "ln"}], "scale: unknown scale 'ln'"),
        ([{**ACCURACY, "reference": "0"}], "reference: should be a valid number, got '0'"),
        ([{**ACCURACY, "reference": float("nan")}], "reference: should be a finite number"),
        ([{**ACCURACY, "reference": 10**400}], r"reference: should be a (finite|valid) number"),
        *(
            ([{**PARAMS, "name": name}], "name: should be a valid string, got")
            for name in (3, None, {"a": 1}, ["accuracy"])
        ),
        ([{**ACCURACY, "name": ""}], "name: .*at least 1 character"),
        ([{**PARAMS, "reference": -1}], "reference: must not be negative"),
        ([{**PARAMS, "within": 0.1}], "within: is for measured objectives on a linear scale"),
        ([{**ACCURACY, "within": 0}], "within: .*greater than 0"),
    ],
)
def test_bad_documents_are_named(items: list[dict[str, object]], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        load_objectives(items)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("objectives: [{name: accuracy, goal: up, reference: 0}]")
    with pytest.raises(StudyError, match=r"mine\.yaml: objectives\[0\]\.goal: unknown goal 'up'"):
        load_objectives(path)
    with pytest.raises(StudyError, match="did you mean 'accuracy-params'"):
        load_objectives("acuracy-params")
