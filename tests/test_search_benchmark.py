"""The comparison of samplers, on a table that a formula fills."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopeft.method.count import count
from benchmarks.search import __main__ as comparison
from benchmarks.search import card, every_layer, problem, runs, saas_sampler, speed, stopped
from benchmarks.search.closed import CLOSED, SIZES
from benchmarks.search.every_layer import SPACE, EveryLayer
from benchmarks.search.figures import figures, interval, trials_to
from benchmarks.search.measure import (
    bound_space,
    config_of,
    done,
    header,
    measure,
    points,
    trainings,
)
from benchmarks.search.peers import FLOORS, PEERS
from benchmarks.search.race import N_START
from benchmarks.search.texts import SHARES

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole table: what stands higher and is larger helps more, with noise of a seed."""
    path = tmp_path_factory.mktemp("tables") / "movies.csv"
    space = bound_space()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header(space))
        for order in trainings(space):
            digits = np.array(order.point) / ([16, 64] * 3)
            gain = digits.reshape(3, 2) @ [1.0, 1.3] @ [0.5, 0.7, 1.4]
            rng = np.random.default_rng([*order.point, order.seed])
            final = 0.7 + 0.1 * (1 - np.exp(-gain / 4)) + rng.normal(0, 0.003)
            params = count(config_of(space, order.point), space.shape).trainable
            cells = [*order.point, order.seed, params, 10**8 + params]
            for share in SHARES:
                accuracy = final - 0.1 / (1 + 3 * share)
                cells += [round(v, 5) for v in (accuracy, 1 - accuracy, 1 - accuracy, 1.0, 0.5)]
            writer.writerow(cells)
    return path.parent


@pytest.fixture(autouse=True)
def own_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (problem, stopped, card, every_layer):
        monkeypatch.setattr(module, "tables", lambda: folder)


def test_rows_are_trained_and_the_table_grows(tmp_path: Path) -> None:
    path, space = tmp_path / "movies.csv", bound_space()
    measure("movies", path, workers=1, most=2)
    measure("movies", path, workers=1, most=1)
    assert done(path, space) == set(list(trainings(space))[:3])
    rows = list(csv.DictReader(path.open()))
    assert [row["seed"] for row in rows] == ["0", "0", "0"]
    for row in rows:
        assert 0.4 < float(row["accuracy@3"]) < 0.9
        assert float(row["train_seconds@1"]) > 0
    path.write_text("other,columns\n1,2\n")
    with pytest.raises(SystemExit, match="rows of another kind"):
        done(path, space)


def test_the_space_is_as_large_as_is_said() -> None:
    space = bound_space()
    assert len(points(space)) == 729 == len({config_of(space, p).key for p in points(space)})
    assert len(list(trainings(space))) == 729 + 2 * 73


def test_a_table_that_is_not_whole_is_no_problem(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (folder / "movies.csv").read_text().splitlines()
    (tmp_path / "movies.csv").write_text("\n".join(lines[:50]))
    monkeypatch.setattr(problem, "tables", lambda: tmp_path)
    with pytest.raises(SystemExit, match="not whole yet"):
        problem.tabular("movies")


def test_all_samplers_start_alike_and_none_gets_worse() -> None:
    found = problem.tabular("movies")
    names = ("bayes", "random", "tpe", "nsga2", "gp")
    courses = {name: PEERS[name].run(found, 0, N_START + 4) for name in names}
    assert len({tuple(course.volumes[:N_START]) for course in courses.values()}) == 1
    for course in courses.values():
        assert len(course.volumes) == N_START + 4
        assert (np.diff(course.volumes) >= 0).all()
        assert 0 <= course.volumes[0] < course.volumes[-1] <= 1
    assert PEERS["random"].run(found, 1, 7).volumes != courses["random"].volumes[:7]


def test_the_whole_table_has_all_of_the_hypervolume() -> None:
    found = problem.tabular("movies")
    values = [found.values(config_of(found.space, point)) for point in points(found.space)]
    assert found.volumes(values)[-1] == pytest.approx(1)


def test_the_oracle_needs_fewest_trials() -> None:
    found, n = problem.tabular("movies"), N_START + 6
    best = FLOORS["oracle"].run(found, 0, n).volumes
    assert best[:N_START] == PEERS["random"].run(found, 0, N_START).volumes
    assert best[-1] > PEERS["bayes"].run(found, 0, n).volumes[-1] - 1e-9


def test_other_tables_are_earlier_studies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem.tabular("movies", folder).earlier == ()
    text = (folder / "movies.csv").read_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "new.csv").write_text(text)
    assert len(problem.tabular("new", elsewhere).earlier) == 1
    monkeypatch.setattr(problem, "tables", lambda: tmp_path)
    for name in ("movies.csv", "other.csv"):
        (tmp_path / name).write_text(text)
    (tmp_path / "part.csv").write_text("\n".join(text.splitlines()[:9]))
    found = problem.tabular("movies", tmp_path)
    (study,) = found.earlier
    assert len(study) == problem.N_EARLIER
    assert study[0].losses == tuple(found.losses(found.values(study[0].config)))


def test_closed_forms_reach_the_hypervolume_that_they_state() -> None:
    found = CLOSED["zdt1"]()
    first, *others = found.space.dimensions.values()
    rest = {dimension.name: dimension.from_unit(0.0) for dimension in others}
    values = map(first.from_unit, np.linspace(0, 1, 200))
    configs = [found.space.resolve({first.name: value, **rest}) for value in values]
    assert found.volumes([found.values(config) for config in configs])[-1] > 0.999

    found = CLOSED["dh1-autopeft"]()
    points = [
        {
            **dict.fromkeys(found.space.dimensions, 1),
            "0.adapter.size": size,
            "1.adapter.size": 24,
            "2.prefix.length": 24,
        }
        for size in SIZES
    ]
    values = [found.values(found.space.resolve(point)) for point in points]
    assert found.volumes(values)[-1] == pytest.approx(1)


def test_a_surrogate_of_the_table_serves_a_larger_space(folder: Path, tmp_path: Path) -> None:
    found = EveryLayer("movies")
    table = problem.Table(folder / "movies.csv")
    grouped = np.array(list(table.rows)).reshape(729, 3, 2)
    told = found.model(np.repeat(grouped, 2, axis=1).reshape(729, 12))
    assert np.abs(told - table.column(problem.last("accuracy"))).mean() < 0.004

    large = found.problem()
    rng = np.random.default_rng(0)
    places = rng.integers([[size] * 5 for size in found.sizes]).T
    configs = [found.space.resolve(point) for point in found.points(places)]
    values = np.array([large.values(config) for config in configs])
    losses = np.array([large.losses(row) for row in values])
    assert found._losses(large, places) == pytest.approx(losses)
    assert values[:, 1].tolist() == [count(c, found.space.shape).trainable for c in configs]
    assert 0 < large.volumes(values.tolist())[-1] < 1

    path = tmp_path / SPACE / "movies.csv"
    measure("movies", path, workers=1, most=3, space_name=SPACE)
    error, spread, correlation = found.error(problem.Table(path, found.space))
    assert 0 < error < 1
    assert 0 < spread < 1
    assert -1 <= correlation <= 1


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_are_run_by_all(name: str) -> None:
    for sampler in ("random", "bayes"):
        course = PEERS[sampler].run(CLOSED[name](), 0, N_START + 1)
        assert len(course.volumes) == N_START + 1
        assert 0 <= course.volumes[-1] <= 1


def test_the_optimizer_of_autopeft_proposes_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpyro")
    for name, value in {"WARMUP": 8, "SAMPLES": 16, "N_EVALUATIONS": 200}.items():
        monkeypatch.setattr(saas_sampler, name, value)
    numbers: list[int] = []
    fit = saas_sampler.SaasSampler._model

    def counted(self: Any, units: Any, scores: Any, n: int) -> Any:
        numbers.append(n)
        return fit(self, units, scores, n)

    monkeypatch.setattr(saas_sampler.SaasSampler, "_model", counted)
    course = PEERS["saas"].run(problem.tabular("movies"), 0, N_START + 5)
    assert len(course.volumes) == N_START + 5
    assert numbers == [N_START, N_START + 4]


def test_figures() -> None:
    volumes = np.array([[0.5, 0.91, 0.96, 1.0], [0.2, 0.5, 0.9, 0.94]])
    assert trials_to(volumes, 0.95).tolist() == [3, 5]
    runs = [{"volumes": list(row), "seconds": 0.2} for row in volumes]
    found = figures(runs)
    assert found["trials_to_90"]["median"] == 2.5
    assert found["trials_to_95"]["reached"] == 0.5
    low, high = interval(np.arange(100.0), np.mean)
    assert low < 49.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 28.9 / 10, rel=0.1)


def test_the_comparison_runs_and_resumes(tmp_path: Path) -> None:
    wanted = [runs.Order("movies", name, seed, 8) for name in ("random", "tpe") for seed in (0, 1)]
    kept = tmp_path / "runs.jsonl"
    runs.run(wanted[:2], kept, 1, folder=problem.tables())
    before = kept.read_text()
    found = runs.run(wanted, kept, 1, folder=problem.tables())
    assert kept.read_text().startswith(before)
    assert len(kept.read_text().splitlines()) == 4
    told = comparison.summary(found)["movies"]
    assert set(told) == {"random", "tpe"}
    comparison.draw(found, tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 1000


def test_stopping_saves_epochs() -> None:
    whole, less = (
        stopped.study(stopped.Order("movies", name, 0, 20)) for name in ("none", "halving")
    )
    assert whole.trained == 20
    assert less.trained < 14
    assert 0.5 < less.volume / whole.volume < 1.2


def test_groups_train_as_much_as_they_are_to() -> None:
    """Of nine trials, each to a ninth, three to a third and one to the end; of two, one."""
    end = stopped.study(stopped.Order("movies", "synchronous_halving", 0, 20))
    assert end.trained == pytest.approx(2 * (9 / 9 + 3 * 2 / 9 + 6 / 9) + 2 / 9 + 8 / 9, abs=1e-4)
    assert len(end.volumes) == 3


def test_the_card_tells_noise_and_correlations() -> None:
    table = problem.Table(problem.tables() / "movies.csv")
    assert card.noise(table) == pytest.approx(0.003, rel=0.2)
    assert card.noise(table, shared=False) == pytest.approx(0.003, rel=0.2)
    for rows in table.repeats.values():
        for row in rows:
            row[problem.last("accuracy")] += 0.1 * row["seed"]
    assert card.noise(table) == pytest.approx(0.1, rel=0.1)
    assert card.noise(table, shared=False) == pytest.approx(0.003, rel=0.2)
    text = card.card("movies")
    assert "729 configurations with seed 0, 73 of them with 3 seeds" in text
    assert "| 3 | 1.00 | -1.00 | -1.00 |" in text


def test_proposals_are_timed() -> None:
    assert 0 < speed.suggest_seconds((12,), 1)["12"] < 60
