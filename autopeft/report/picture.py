"""The Pareto plot as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from autopeft.objective.objective import Objective
from autopeft.report.chart import Axis, Chart
from autopeft.report.style import ACCENT, COLOURS, FAINT, INK, MUTED
from autopeft.report.value import short, title

DPI = 160


def draw(content: Chart) -> Figure:
    """The picture, 8 by 5 inches; no global state of matplotlib is read or changed."""
    figure = Figure(figsize=(8, 5), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _frame(axes, content)
    if content.line:
        axes.plot(*_positions(content, content.line), color=ACCENT, lw=1.4, alpha=0.75, zorder=2)
    shade = _dots(axes, content)
    if shade is not None and content.colour is not None:
        _colour_bar(figure, axes, shade, content.colour)
    _rings(axes, content)
    figure.draw_without_rendering()  # the places of the names depend on the layout
    _names(axes, content)
    if content.dots:
        axes.legend(loc="lower right", frameon=False, fontsize=8, labelcolor=INK)
    else:
        axes.text(0.5, 0.5, "no trial yet", transform=axes.transAxes, ha="center", color=MUTED)
    return figure


def _frame(axes: Any, content: Chart) -> None:
    """Axes, ticks and grid."""
    axes.set_xlabel(content.x.title, color=INK)
    axes.set_ylabel(content.y.title, color=INK)
    axes.grid(visible=True, color=FAINT, lw=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    axes.margins(x=0.06, y=0.08)
    _scale(axes.xaxis, axes.set_xscale, content.x, [dot.x for dot in content.dots])
    _scale(axes.yaxis, axes.set_yscale, content.y, [dot.y for dot in content.dots])


def _scale(ticks: Any, set_scale: Callable[[str], None], axis: Axis, values: list[float]) -> None:
    """The scale of an axis and its ticks."""
    if not values:
        return
    if axis.log:
        set_scale("log")
        ticks.set_minor_locator(NullLocator())
    labels = axis.ticks(values)
    if labels:
        ticks.set_major_locator(FixedLocator(list(labels)))
        ticks.set_major_formatter(FixedFormatter(list(labels.values())))


def _dots(axes: Any, content: Chart) -> Any:
    """Draws the trials; returns what a colour bar needs, None without a third objective."""
    shade = None
    styles: dict[str, dict[str, Any]] = {
        "stopped": {"marker": "x", "s": 22, "c": MUTED, "alpha": 0.45, "lw": 1, "zorder": 1},
        "dominated": {"marker": "o", "s": 22, "c": MUTED, "alpha": 0.55, "lw": 0, "zorder": 2},
        "front": {"marker": "o", "s": 52, "ec": INK, "lw": 0.7, "zorder": 4},
    }
    for kind, style in styles.items():
        dots = [dot for dot in content.dots if dot.kind == kind]
        if not dots:
            continue
        label = {"stopped": "stopped early", "dominated": "trial", "front": "Pareto front"}[kind]
        places = _positions(content, [(dot.x, dot.y) for dot in dots])
        colours = [dot.colour for dot in dots]
        if kind == "front" and content.colour is not None and None not in colours:
            shade = axes.scatter(*places, **style, c=colours, cmap=COLOURS, label=label)
        else:
            axes.scatter(*places, **({"c": ACCENT} | style), label=label)
    return shade


def _colour_bar(figure: Figure, axes: Any, shade: Any, objective: Objective) -> None:
    bar = figure.colorbar(shade, ax=axes, pad=0.015, fraction=0.045)
    bar.set_label(title(objective), color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=9)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(objective, value)))


def _rings(axes: Any, content: Chart) -> None:
    """Rings the baselines and the knee."""
    styles: dict[str, dict[str, Any]] = {
        "baseline": {"marker": "D", "s": 90, "ec": INK, "lw": 1.1, "zorder": 5},
        "knee": {"marker": "o", "s": 160, "ec": ACCENT, "lw": 1.7, "zorder": 3},
    }
    for label, dots in (("baseline", content.baselines()), ("knee", content.at_knee())):
        if dots:
            places = _positions(content, [(dot.x, dot.y) for dot in dots])
            axes.scatter(*places, fc="none", label=label, **styles[label])


def _names(axes: Any, content: Chart) -> None:
    """Names the baselines, each below, above or beside its dot, where no other name is."""
    taken: list[tuple[float, float]] = []
    to_points = 72.0 / DPI
    for dot in content.baselines():
        text = str(dot.trial.baseline)
        width, height = 2.6 * len(text), 6.0
        place = (content.x.position(dot.x), content.y.position(dot.y))
        px, py = axes.transData.transform(place) * to_points
        offsets = [(0.0, -14.0), (0.0, 14.0), (width + 10, 0.0), (-width - 10, 0.0)]
        free = [
            (dx, dy)
            for dx, dy in offsets
            if all(abs(px + dx - x) > 2 * width or abs(py + dy - y) > 2 * height for x, y in taken)
        ]
        dx, dy = (free or offsets)[0]
        taken.append((px + dx, py + dy))
        _name(axes, text, place, (dx, dy))


def _name(axes: Any, text: str, place: tuple[float, float], offset: tuple[float, float]) -> None:
    label = axes.annotate(
        text, place, offset, textcoords="offset points", ha="center", va="center", fontsize=8
    )
    box = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8}
    label.set(color=INK, zorder=6, bbox=box, parse_math=False)


def _positions(
    content: Chart, points: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Values as positions on both axes."""
    return (
        [content.x.position(x) for x, _ in points],
        [content.y.position(y) for _, y in points],
    )
