from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from autopeft.core.errors import StudyError
from autopeft.report import plot
from autopeft.report.chart import ZERO_STEP, chart
from autopeft.report.picture import draw
from tests.report.trials import ACCURACY, MEMORY, OBJECTIVES, PARAMS, STUDY, complete


def test_chart_holds_every_trial_that_has_a_place() -> None:
    content = chart(STUDY, OBJECTIVES)
    kinds = {dot.trial.number: dot.kind for dot in content.dots}
    assert kinds == {
        0: "dominated",
        1: "dominated",
        2: "front",
        3: "front",
        4: "front",
        5: "front",
        6: "dominated",
        7: "stopped",
    }
    stopped = next(dot for dot in content.dots if dot.kind == "stopped")
    assert (stopped.x, stopped.y) == (12_288, 0.6)
    assert [dot.trial.baseline for dot in content.baselines()] == ["lora", "pfeiffer", "head-only"]
    assert content.knee == 4


def test_axes_are_quality_against_cost_whatever_the_order() -> None:
    for objectives in (OBJECTIVES, (PARAMS, ACCURACY, MEMORY), (PARAMS, MEMORY, ACCURACY)):
        content = chart(STUDY, objectives)
        assert (content.x.objective, content.y.objective) == (PARAMS, ACCURACY)
        assert content.colour == MEMORY


def test_zero_has_a_place_on_the_logarithmic_axis() -> None:
    axis = chart(STUDY, OBJECTIVES).x
    assert axis.log
    assert axis.zero == 12_288 / ZERO_STEP
    ticks = axis.ticks([0, 12_288, 300_000])
    assert list(ticks.values()) == ["0", "30k", "100k", "300k"]
    assert axis.position(0) < 12_288
    assert axis.position(500) == 500


def test_line_is_a_staircase_of_what_nothing_dominates_on_the_plot() -> None:
    line = chart(STUDY, OBJECTIVES).line
    corners = [(0, 0.7), (30_000, 0.7), (30_000, 0.79), (60_000, 0.79), (60_000, 0.845)]
    assert line == (*corners, (300_000, 0.845), (300_000, 0.85))


def test_values_that_hardly_spread_get_a_linear_axis() -> None:
    content = chart(STUDY, (ACCURACY, MEMORY))
    assert not content.x.log
    labels = content.x.ticks([dot.x for dot in content.dots])
    assert "600 MB" in labels.values()
    assert "1 GB" in labels.values()


@pytest.mark.parametrize("objectives", [OBJECTIVES, (ACCURACY, PARAMS), (ACCURACY,), (PARAMS,)])
@pytest.mark.parametrize("records", [STUDY, STUDY[:1], STUDY[2:3], STUDY[7:8], STUDY[8:], ()])
@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_any_study_can_be_drawn(objectives, records, suffix: str, tmp_path: Path) -> None:
    path = plot(records, objectives, tmp_path / f"front{suffix}")
    assert path.stat().st_size > 5_000


def test_picture_shows_the_front_the_line_and_the_names() -> None:
    axes = draw(chart(STUDY, OBJECTIVES)).axes[0]
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"stopped early", "trial", "Pareto front", "baseline", "knee"}
    assert {text.get_text() for text in axes.texts} == {"lora", "pfeiffer", "head-only"}
    assert axes.get_xscale() == "log"
    front = next(c for c in axes.collections if c.get_label() == "Pareto front")
    assert len(front.get_offsets()) == 4
    assert len(set(front.get_array())) == 3


def test_names_close_together_do_not_cover_each_other() -> None:
    records = [complete(i, 0.8, 50_000, baseline=f"baseline {i}") for i in range(3)]
    figure = draw(chart([*records, complete(3, 0.9, 900_000)], (ACCURACY, PARAMS)))
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_picture_has_ink_and_changes_nothing_global(tmp_path: Path) -> None:
    before = dict(mpl.rcParams), mpl.get_backend(auto_select=False)
    pixels = imread(plot(STUDY, OBJECTIVES, tmp_path / "front.png"))
    assert pixels.shape[:2] == (800, 1280)
    assert np.unique(pixels.reshape(-1, 4), axis=0).shape[0] > 50
    assert before == (dict(mpl.rcParams), mpl.get_backend(auto_select=False))


def test_interactive_plot_needs_no_network_and_escapes(tmp_path: Path) -> None:
    evil = replace(STUDY[0], baseline="<script>alert(1)</script>")
    text = plot([evil, *STUDY[1:]], OBJECTIVES, tmp_path / "front.HTML").read_text("utf-8")
    assert "<script src=" not in text
    assert len(text) > 1_000_000
    assert "<script>alert" not in text


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"unknown suffix '.jpg'; known: .html, .png"):
        plot(STUDY, OBJECTIVES, tmp_path / "front.jpg")
    with pytest.raises(StudyError, match="no folder"):
        plot(STUDY, OBJECTIVES, tmp_path / "nowhere/front.png")
