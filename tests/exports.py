"""What exports a trial has, as the libraries load them that they are for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import PeftModel

import autopeft

FORMS = ("native", "peft", "merged")


def exported(
    outcome: Any, number: int, auto: Any, base: Path | str, folder: Path, **options: Any
) -> Iterator[tuple[str, Any]]:
    """Each form with its model in eval mode.

    Args:
        outcome: of a study.
        number: of the trial.
        auto: the class of transformers that loads such models.
        base: of the backbone.
        folder: to write to.
        options: of the backbone.
    """
    for form in FORMS:
        made = autopeft.export(outcome, folder / form, trial=number, format=form)
        if form == "merged":
            yield form, auto.from_pretrained(made).eval()
            continue
        model = auto.from_pretrained(base, **options).eval()
        if form == "peft":
            yield form, PeftModel.from_pretrained(model, made).eval()
        else:
            yield form, autopeft.load(model, made).model.eval()


def run_card(output: Path) -> dict[str, Any]:
    """The names that the code of a card leaves, run beside the folder."""
    code = (output / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(output.parent)
    try:
        exec(code, names)
    finally:
        os.chdir(before)
    return names
