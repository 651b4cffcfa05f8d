"""Writes the pages of the site that are made from what autopeft itself says."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files

from autopeft.cli.catalog import entries

PAGES = {
    "methods.md": ("Methods", {"methods": ""}),
    "catalog.md": (
        "Catalog",
        {
            "spaces": "Spaces and configurations",
            "objectives": "Objectives",
            "studies": "Studies",
            "samplers": "Samplers",
            "proposers": "One-shot searches",
            "tasks": "Tasks",
        },
    ),
}
"""By page its title, and the kinds that it lists with their headings."""


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Adds the generated pages."""
    for name, (title, kinds) in PAGES.items():
        parts = [f"# {title}", *(_table(kind, heading) for kind, heading in kinds.items())]
        files.append(File.generated(config, name, content="\n\n".join(parts) + "\n"))
    return files


def _table(kind: str, heading: str) -> str:
    head = [f"## {heading}\n"] if heading else []
    rows = (f"| `{each['name']}` | {_cell(each['description'])} |" for each in entries(kind))
    return "\n".join([*head, "| | |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
