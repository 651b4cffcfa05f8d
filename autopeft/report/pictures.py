"""Configurations of the front as pictures of their networks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import groupby

from autopeft.report.front import Front
from autopeft.report.markup import configuration, folded_away, number, text, told_values
from autopeft.report.network import Cell, Network, network
from autopeft.report.style import LINES
from autopeft.study.trial import TrialRecord

MOST_DRAWN = 40
"""Configurations of the front that are drawn."""


def pictures(
    front: Front, records: Sequence[TrialRecord], name: str, reference: Sequence[str]
) -> str:
    """Each configuration of the front as a picture, with the commands that export it."""
    layers = [layer for record in records for layer in record.config.layers]
    n_layers = max(layers, default=-1) + 1
    told = [
        folded_away(
            f"trial {number(trial)} · {' · '.join(told_values(trial, front.objectives))}",
            _drawn(network(trial.config, n_layers))
            + configuration(trial)
            + _exports(trial, name, reference),
            trial.number,
        )
        for trial in front.trials[:MOST_DRAWN]
    ]
    return "".join(told) or "<p>No trial is complete yet.</p>"


def _drawn(net: Network) -> str:
    """A table whose cells are as strong as what stands there is large."""
    if not net.columns:
        return "<p>Nothing is placed: the head alone is trained.</p>"
    shades = {m: LINES[i % len(LINES)] for i, m in enumerate(net.largest)}
    methods = [(m, len(list(of))) for m, of in groupby(method for method, _ in net.columns)]
    top = "".join(f"<th colspan={n}>{text(method)}</th>" for method, n in methods)
    sites = "".join(f"<th>{text(site)}</th>" for _, site in net.columns)
    body = ""
    for layer, row in reversed(list(enumerate(net.rows))):
        cells = (
            _shaded(cell, shades[method], net.largest[method])
            for (method, _), cell in zip(net.columns, row, strict=True)
        )
        body += f"<tr><th>layer {layer}</th>{''.join(cells)}</tr>"
    head = f"<thead><tr><th></th>{top}</tr><tr><th></th>{sites}</tr></thead>"
    table = f"<table class=network>{head}<tbody>{body}</tbody></table>"
    return f"<div class=wide>{table}</div>"


def _shaded(cell: Cell | None, colour: str, largest: float) -> str:
    if cell is None:
        return "<td></td>"
    strength = 25 + 55 * cell.size / largest
    shade = f"color-mix(in srgb, {colour} {strength:.0f}%, transparent)"
    size = f"{cell.size:g}" if largest > 1 else "•"
    return f'<td class=on style="background:{shade}" title="{text(cell.words)}">{size}</td>'


def _exports(trial: TrialRecord, name: str, reference: Sequence[str]) -> str:
    """The command that writes the trial, ready to copy."""
    words = ["autopeft", "export", *reference, "--trial", str(trial.number), "--output"]
    command = shlex.join([*words, f"{name}-{trial.number}"])
    button = "<button class=copy type=button>copy</button>"
    return f"<div class=command>{button}<code>{text(command)}</code></div>"
