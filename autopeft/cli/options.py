"""Options that several commands have, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.core.catalog import parse
from autopeft.core.errors import StudyError

if TYPE_CHECKING:
    from autopeft.api.outcome import Outcome

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Name or path of a study file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; bytes and seconds.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the study file."),
]
Pick = Annotated[
    str | None, typer.Option(help="knee, best or cheapest of the front; knee by default.")
]
MaxParams = Annotated[
    str | None, typer.Option(help="Only trials that train at most so many, such as 0.2%.")
]
MaxMemory = Annotated[
    str | None, typer.Option(help="Only trials predicted to take at most this, such as 8GB.")
]
Format = Annotated[
    str | None,
    typer.Option(help="native, peft, merged, onnx or adapters; by default as `deploy` says."),
]
Uniform = Annotated[
    bool | None,
    typer.Option(help="With peft: one rank of LoRA everywhere; by default if ranks differ."),
]
PushToHub = Annotated[
    str | None,
    typer.Option("--push-to-hub", metavar="USER/NAME", help="Upload it to this repository."),
]
Private = Annotated[
    bool | None, typer.Option(help="A new repository of the hub is private, or not.")
]
Storage = Annotated[str | None, typer.Option(help="URL of the Optuna storage.")]


def changes_of(given: list[str] | None, **options: Any) -> dict[str, Any]:
    """`--set` and the shorthand options as one mapping of dotted keys."""
    changes = {}
    for text in given or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise StudyError(f"expected key=value, got {text!r}", "--set")
        changes[key] = parse(value, f"--set {key}")
    named = {"n_trials": "search.n_trials", "engine": "engine.type", "storage": "storage"}
    return changes | {named[k]: v for k, v in options.items() if v is not None}


def outcome_within(
    study: str, changes: dict[str, Any], max_params: str | None, max_memory: str | None
) -> Outcome:
    """What the record of a study says of the trials within limits."""
    from autopeft.api.outcome import open_study

    outcome = open_study(study, changes=changes)
    given = {"trainable_params": max_params, "peak_memory": max_memory}
    limits = {name: most for name, most in given.items() if most is not None}
    if not limits:
        return outcome
    from autopeft.api.limits import limited  # imports torch

    return limited(outcome, limits)


def same_study(changes: list[str] | None, storage: str | None) -> list[str]:
    """What other commands need to find the same study."""
    options = [part for change in changes or () for part in ("--set", change)]
    return options if storage is None else [*options, "--storage", storage]
