"""The plots that a browser draws; they need no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io

from autopeft.report.chart import Axis, Chart, Dot
from autopeft.report.style import ACCENT, COLOURS, FAINT, INK, LINES, MUTED
from autopeft.report.summary import summary
from autopeft.report.value import shown, title

_CONFIG = {"displaylogo": False, "responsive": True}
_NAMES = {"stopped": "stopped early", "dominated": "trial", "front": "Pareto front"}


def pareto_figure(content: Chart) -> go.Figure:
    """The Pareto plot; pointing at a trial shows its values and configuration."""
    figure = _figure(content.x.title, content.y.title)
    if content.line:
        xs, ys = zip(*content.line, strict=True)
        x, y = _places(content.x, xs), _places(content.y, ys)
        line = {"color": ACCENT, "width": 1.5}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    for kind, name in _NAMES.items():
        dots = [dot for dot in content.dots if dot.kind == kind]
        if dots:
            figure.add_trace(_scatter(content, dots, name, _marker(content, dots, kind)))
    if content.baselines():
        ring = {"symbol": "diamond-open", "size": 15, "color": INK, "line": {"width": 1.5}}
        figure.add_trace(_scatter(content, content.baselines(), "baseline", ring))
    if content.at_knee():
        ring = {"symbol": "circle-open", "size": 19, "color": ACCENT, "line": {"width": 2}}
        figure.add_trace(_scatter(content, content.at_knee(), "knee", ring))
    _scale(figure.update_xaxes, content.x, [dot.x for dot in content.dots])
    _scale(figure.update_yaxes, content.y, [dot.y for dot in content.dots])
    return figure


def lines_figure(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], x: str, y: str, *, strong: int
) -> go.Figure:
    """Curves (name, xs, ys) over common axes; the first `strong` in colour, the others faint."""
    figure = _figure(x, y)
    if faint := lines[strong:]:
        figure.add_scatter(
            x=[place for _, xs, _ in faint for place in (*xs, None)],
            y=[value for _, _, ys in faint for value in (*ys, None)],
            text=[html.escape(name) for name, xs, _ in faint for _ in (*xs, None)],
            hoverinfo="x+y+text",
            mode="lines+markers",
            line={"color": MUTED, "width": 1},
            opacity=0.35,
            showlegend=False,
        )
    for index, (name, xs, ys) in reversed(list(enumerate(lines[:strong]))):
        figure.add_scatter(
            x=list(xs),
            y=list(ys),
            name=html.escape(name),
            mode="lines+markers" if len(xs) < 12 else "lines",
            line={"color": LINES[index % len(LINES)], "width": 2},
            showlegend=len(lines) > 1,
            legendrank=index,
        )
    return figure


def fragment(figure: go.Figure, *, library: bool) -> str:
    """The figure as a part of a page; `library` says whether plotly's code comes with it."""
    return str(plotly.io.to_html(figure, include_plotlyjs=library, full_html=False, config=_CONFIG))


def page_of(figure: go.Figure) -> str:
    """The figure as a page of its own, with plotly's code inside."""
    return str(plotly.io.to_html(figure, include_plotlyjs=True, full_html=True, config=_CONFIG))


def _figure(x: str, y: str) -> go.Figure:
    axis = {"gridcolor": FAINT, "linecolor": MUTED, "zeroline": False, "ticks": "outside"}
    return go.Figure(
        layout={
            "template": "none",
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
            "margin": {"l": 70, "r": 20, "t": 20, "b": 60},
            "height": 460,
            "hovermode": "closest",
            "hoverlabel": {"align": "left", "bgcolor": "white"},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {**axis, "title": {"text": html.escape(x)}},
            "yaxis": {**axis, "title": {"text": html.escape(y)}},
        }
    )


def _marker(content: Chart, dots: Sequence[Dot], kind: str) -> dict[str, Any]:
    if kind == "stopped":
        return {
            "symbol": "x-thin",
            "size": 7,
            "opacity": 0.5,
            "line": {"color": MUTED, "width": 1.2},
        }
    if kind == "dominated":
        return {"size": 7, "color": MUTED, "opacity": 0.6}
    marker: dict[str, Any] = {"size": 10, "color": ACCENT, "line": {"color": INK, "width": 0.8}}
    if content.colour is None or any(dot.colour is None for dot in dots):
        return marker
    bar = {"title": {"text": html.escape(title(content.colour)), "side": "right"}, "thickness": 14}
    bar |= {"outlinewidth": 0, "tickformat": ".3~s" if content.colour.known else ""}
    shades = [dot.colour for dot in dots]
    return marker | {"color": shades, "colorscale": COLOURS.capitalize(), "colorbar": bar}


def _scatter(content: Chart, dots: Sequence[Dot], name: str, marker: dict[str, Any]) -> go.Scatter:
    baseline = name == "baseline"
    return go.Scatter(
        x=_places(content.x, [dot.x for dot in dots]),
        y=_places(content.y, [dot.y for dot in dots]),
        mode="markers+text" if baseline else "markers",
        text=[html.escape(dot.trial.baseline or "") for dot in dots] if baseline else None,
        textposition="bottom center",
        name=name,
        marker=marker,
        hovertext=[_hover(content, dot) for dot in dots],
        hoverinfo="text",
    )


def _hover(content: Chart, dot: Dot) -> str:
    name = f" · {dot.trial.baseline}" if dot.trial.baseline else ""
    rows = [f"<b>trial {dot.trial.number}{html.escape(name)}</b>"]
    for objective, value in (
        (content.y.objective, dot.y),
        (content.x.objective, dot.x),
        (content.colour, dot.colour),
    ):
        if objective is not None:
            rows.append(f"{html.escape(objective.name)} {html.escape(shown(objective, value))}")
    rows += [html.escape(part) for part in summary(dot.trial.config).split(" · ")]
    return "<br>".join(rows)


def _places(axis: Axis, values: Sequence[float]) -> list[float]:
    return [axis.position(value) for value in values]


def _scale(update: Any, axis: Axis, values: Sequence[float]) -> None:
    """The scale of an axis and its ticks."""
    if not values:
        return
    update(type="log" if axis.log else "linear")
    labels = axis.ticks(values)
    if labels:
        update(tickvals=list(labels), ticktext=list(labels.values()))
