"""The plots that a browser draws; they need no network."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from autopeft.report.chart import Axis, Chart, Dot
from autopeft.report.style import ACCENT, COLOURS, FAINT, INK, LINES, MUTED
from autopeft.report.summary import summary
from autopeft.report.value import shown, title

Figure = dict[str, Any]
"""What Plotly.js draws: `data` and `layout`."""

_NAMES = {"stopped": "stopped early", "dominated": "trial", "front": "Pareto front"}


def pareto_figure(content: Chart) -> Figure:
    """The Pareto plot; pointing at a trial shows its values and configuration."""
    traces: list[dict[str, Any]] = []
    if content.line:
        xs, ys = zip(*content.line, strict=True)
        x, y = _places(content.x, xs), _places(content.y, ys)
        line = {"color": ACCENT, "width": 1.5}
        traces.append(_lines(x, y, line=line, hoverinfo="skip", showlegend=False))
    for kind, name in _NAMES.items():
        dots = [dot for dot in content.dots if dot.kind == kind]
        if dots:
            traces.append(_scatter(content, dots, name, _marker(content, dots, kind)))
    if content.baselines():
        ring = {"symbol": "diamond-open", "size": 15, "color": INK, "line": {"width": 1.5}}
        traces.append(_scatter(content, content.baselines(), "baseline", ring))
    if content.at_knee():
        ring = {"symbol": "circle-open", "size": 19, "color": ACCENT, "line": {"width": 2}}
        traces.append(_scatter(content, content.at_knee(), "knee", ring))
    x_scale = _scale(content.x, [dot.x for dot in content.dots])
    y_scale = _scale(content.y, [dot.y for dot in content.dots])
    return _figure(traces, (content.x.title, x_scale), (content.y.title, y_scale))


def lines_figure(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], x: str, y: str, *, strong: int
) -> Figure:
    """Curves (name, xs, ys) over common axes; the first `strong` in colour, the others faint."""
    traces: list[dict[str, Any]] = []
    if faint := lines[strong:]:
        apart = _lines(
            [place for _, xs, _ in faint for place in (*xs, None)],
            [value for _, _, ys in faint for value in (*ys, None)],
            mode="lines+markers",
            line={"color": MUTED, "width": 1},
            opacity=0.35,
            showlegend=False,
        )
        names = [html.escape(name) for name, xs, _ in faint for _ in (*xs, None)]
        traces.append({**apart, "text": names, "hoverinfo": "x+y+text"})
    for index, (name, xs, ys) in reversed(list(enumerate(lines[:strong]))):
        traces.append(
            _lines(
                xs,
                ys,
                name=html.escape(name),
                mode="lines+markers" if len(xs) < 12 else "lines",
                line={"color": LINES[index % len(LINES)], "width": 2},
                showlegend=len(lines) > 1,
                legendrank=index,
            )
        )
    return _figure(traces, (x, {}), (y, {}))


def effects_figure(rows: Sequence[tuple[str, float, float]], unit: str) -> Figure:
    """Gains of choices (name, gain, half of its interval), the first on top."""
    names, gains, margins = zip(*reversed(rows), strict=True)
    bars = {"type": "data", "array": list(margins), "color": MUTED, "thickness": 1.5, "width": 5}
    sure = [abs(gain) > margin for gain, margin in zip(gains, margins, strict=True)]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": list(gains),
        "y": [html.escape(name) for name in names],
        "error_x": bars,
        "marker": {"size": 10, "color": [ACCENT if each else MUTED for each in sure]},
        "hovertemplate": "%{y}: %{x:+.2f}<extra></extra>",
    }
    line = {"zeroline": True, "zerolinecolor": MUTED}
    figure = _figure([trace], (f"gain in {unit}", line), ("", {"automargin": True}))
    figure["layout"] |= {"height": 120 + 26 * len(rows), "showlegend": False}
    return figure


def against_figure(points: Sequence[tuple[str, float, float]], x: str, y: str) -> Figure:
    """Points (name, x, y) of one unit, and where both are the same."""
    names, xs, ys = zip(*points, strict=True)
    ends = [min(*xs, *ys), max(*xs, *ys)]
    same = _lines(ends, ends, line={"color": MUTED, "width": 1}, hoverinfo="skip")
    dots = {
        **_lines(xs, ys, mode="markers", marker={"size": 8, "color": ACCENT}),
        "text": [html.escape(name) for name in names],
        "hoverinfo": "x+y+text",
    }
    figure = _figure([same, dots], (x, {"tickformat": ".3~s"}), (y, {"tickformat": ".3~s"}))
    figure["layout"]["showlegend"] = False
    return figure


def fragment(figure: Figure) -> str:
    """The figure as a part of a page that has the `library` before it."""
    told = json.dumps(_finite(figure), separators=(",", ":")).replace("<", "\\u003c")
    return f'<div class="figure"></div><script>autopeft.draw({told})</script>'


def library() -> str:
    """Styles and code of a page, which its head holds."""
    plotly = files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    own = files("autopeft.report")
    css, code = (own.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return f"<style>{css}</style>\n<script>{plotly}</script>\n<script>{code}</script>"


def page_of(figure: Figure) -> str:
    """The figure as a page of its own, with plotly's code inside."""
    head = f'<meta charset="utf-8"><title>Pareto front</title>{library()}'
    body = f"<body>{fragment(figure)}</body>"
    return f'<!doctype html><html lang="en"><head>{head}</head>{body}</html>'


def _finite(value: Any) -> Any:
    """A document of JSON, which has no numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _figure(
    traces: Sequence[dict[str, Any]],
    x: tuple[str, dict[str, Any]],
    y: tuple[str, dict[str, Any]],
) -> Figure:
    """Traces over axes of a title and a scale."""
    axis = {"gridcolor": FAINT, "linecolor": MUTED, "zeroline": False, "ticks": "outside"}
    layout = {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 70, "r": 20, "t": 20, "b": 60},
        "height": 460,
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {**axis, "title": {"text": html.escape(x[0])}, **x[1]},
        "yaxis": {**axis, "title": {"text": html.escape(y[0])}, **y[1]},
    }
    return {"data": list(traces), "layout": layout}


def _lines(xs: Sequence[Any], ys: Sequence[Any], **options: Any) -> dict[str, Any]:
    return {"type": "scatter", "x": list(xs), "y": list(ys), "mode": "lines", **options}


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


def _scatter(
    content: Chart, dots: Sequence[Dot], name: str, marker: dict[str, Any]
) -> dict[str, Any]:
    trace = {
        "type": "scatter",
        "x": _places(content.x, [dot.x for dot in dots]),
        "y": _places(content.y, [dot.y for dot in dots]),
        "mode": "markers",
        "name": name,
        "marker": marker,
        "hovertext": [_hover(content, dot) for dot in dots],
        "hoverinfo": "text",
        "customdata": [dot.trial.number for dot in dots],
        **_interval(content, dots),
    }
    if name != "baseline":
        return trace
    names = [html.escape(dot.trial.baseline or "") for dot in dots]
    return {**trace, "mode": "markers+text", "text": names, "textposition": "bottom center"}


def _interval(content: Chart, dots: Sequence[Dot]) -> dict[str, Any]:
    """The margins of means over fresh seeds, as bars."""
    objective = content.y.objective
    margins = [dot.trial.margins.get(objective.name, 0.0) if objective else 0.0 for dot in dots]
    if not any(margins):
        return {}
    bars = {"type": "data", "array": margins, "color": MUTED, "thickness": 1.2, "width": 4}
    return {"error_y": bars}


def solid_figure(content: Chart) -> Figure:
    """The trials over three objectives; the front in colour."""
    axes = [content.x.title, "" if content.colour is None else title(content.colour)]
    traces = []
    for kind, name in _NAMES.items():
        dots = [dot for dot in content.dots if dot.kind == kind and dot.colour is not None]
        size, colour = (5, ACCENT) if kind == "front" else (3, MUTED)
        traces.append(
            {
                "type": "scatter3d",
                "mode": "markers",
                "name": name,
                "x": _places(content.x, [dot.x for dot in dots]),
                "y": [dot.colour for dot in dots],
                "z": [dot.y for dot in dots],
                "marker": {"size": size, "color": colour},
                "hovertext": [_values(content, dot) for dot in dots],
                "hoverinfo": "text",
                "customdata": [dot.trial.number for dot in dots],
            }
        )
    figure = _figure(traces, ("", {}), ("", {}))
    log = content.colour is not None and content.colour.scale == "log"
    scene = {
        "xaxis": {"title": {"text": html.escape(axes[0])}, "type": _kind(content.x.log)},
        "yaxis": {"title": {"text": html.escape(axes[1])}, "type": _kind(log)},
        "zaxis": {"title": {"text": html.escape(content.y.title)}},
    }
    layout = {k: v for k, v in figure["layout"].items() if k not in ("xaxis", "yaxis")}
    return {"data": figure["data"], "layout": {**layout, "scene": scene, "height": 560}}


def _kind(log: bool) -> str:
    return "log" if log else "linear"


def _hover(content: Chart, dot: Dot) -> str:
    """The values of a trial and its configuration."""
    parts = summary(dot.trial.config).split(" · ")
    return "<br>".join([_values(content, dot), *map(html.escape, parts)])


def _values(content: Chart, dot: Dot) -> str:
    name = f" · {dot.trial.baseline}" if dot.trial.baseline else ""
    rows = [f"<b>trial {dot.trial.number}{html.escape(name)}</b>"]
    for objective, value in (
        (content.y.objective, dot.y),
        (content.x.objective, dot.x),
        (content.colour, dot.colour),
    ):
        if objective is not None:
            rows.append(f"{html.escape(objective.name)} {html.escape(shown(objective, value))}")
    return "<br>".join(rows)


def _places(axis: Axis, values: Sequence[float]) -> list[float]:
    return [axis.position(value) for value in values]


def _scale(axis: Axis, values: Sequence[float]) -> dict[str, Any]:
    """The scale of an axis and its ticks."""
    if not values:
        return {}
    scale: dict[str, Any] = {"type": _kind(axis.log)}
    if labels := axis.ticks(values):
        scale |= {"tickvals": list(labels), "ticktext": list(labels.values())}
    return scale
