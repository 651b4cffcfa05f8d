"""The page of the docs that says what came of all faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def page(document: Mapping[str, Any]) -> str:
    """In Markdown; parts that were not run are left out."""
    return "\n".join([*_head(document["machine"]), *_body(document), ""])


def _head(machine: Mapping[str, Any]) -> Iterator[str]:
    yield "# What was broken on purpose"
    yield ""
    yield "`python -m benchmarks.faults` writes this page from what it finds and says what it does."
    yield f"Measured on {machine['cores']} cores ({machine['cpu']})."


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    if "injected" in document:
        kinds = ", ".join(f"{n} × {kind}" for kind, n in document["by_kind"].items())
        yield from _table(
            "Studies that are killed while they run",
            {
                "faults": f"{document['injected']} ({kinds})",
                "studies, trials": f"{document['studies']}, {document['trials']}",
                "trials lost": document["trials_lost"],
                "trials repeated": document["trials_repeated"],
                "stuck": document["stuck"],
                "processes left behind": document["left_behind"],
                "longest recovery, with the start of a process": (
                    f"{document['longest_recovery']:.0f} s"
                ),
                "inline: the end of a run that nobody disturbs": document["same_end"],
            },
        )
    yield from _of_inputs(document)
    if "seconds" in document:
        by_storage = {
            command: ", ".join(f"{s:.1f} s ({storage})" for storage, s in seconds.items())
            for command, seconds in document["seconds"].items()
        }
        yield from _table(
            f"Where a study has {document['large']:,} trials of 64 workers", by_storage
        )


def _of_inputs(document: Mapping[str, Any]) -> Iterator[str]:
    if "bad_inputs" in document:
        kinds = ", ".join(f"{n} × {kind}" for kind, n in document["bad_inputs_by_kind"].items())
        yield from _table(
            "Inputs that are broken at random",
            {
                "bad inputs": f"{document['bad_inputs']} ({kinds})",
                "tracebacks": document["tracebacks"],
                "ends that are no exit code 2 with one line": document["otherwise"],
                "inputs that meant something after all": document["not_bad_after_all"],
            },
        )
    if "dsl" in document:
        dsl = document["dsl"]
        rows = {
            "spaces": f"{dsl['documents']:,} in {dsl['seconds']:.0f} s",
            "errors of other kinds": len(dsl["errors"]),
        }
        yield from _table("Spaces that are broken at random, in one process", rows)


def _table(title: str, rows: Mapping[str, object]) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| | |", "|---|---|")
    for name, value in rows.items():
        yield f"| {name} | {value} |"
