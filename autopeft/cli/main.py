"""The commands."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import sys
import traceback
import warnings
from importlib import metadata
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from autopeft.cli.encoding import write_anything
from autopeft.cli.options import (
    Changes,
    Format,
    Json,
    MaxMemory,
    MaxParams,
    Pick,
    Private,
    PushToHub,
    Storage,
    StudyName,
    Uniform,
    changes_of,
    outcome_within,
    same_study,
)
from autopeft.core.errors import AutoPeftError, AutoPeftWarning, StudyError, redacted

app = typer.Typer(pretty_exceptions_enable=False)

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""Every wrong use of the command line; where typer keeps the class depends on its version."""

N_ALLOCATED = 50_000
"""Objects between two collections of garbage: imports and records make many that stay."""

_INTERRUPTED = 130


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Search for the PEFT configuration of your model and data."""
    if version:
        print(f"autopeft {metadata.version('autopeft')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def init(
    model: Annotated[str, typer.Option(help="Hub id, folder or package.")],
    data: Annotated[str, typer.Option(help="Hub id, file or folder.")],
    gpus: Annotated[int | None, typer.Option(help="GPUs of trials; by default all here.")] = None,
    hours: Annotated[float | None, typer.Option(help="That the study may take.")] = None,
    output: Annotated[Path, typer.Option(help="The study file; it is not there yet.")] = Path(
        "study.yaml"
    ),
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Look at a model and at data, time a few steps, and write a study file that fits."""
    if output.suffix not in (".yaml", ".yml"):
        raise StudyError("must end in .yaml, which is how studies are told from names", str(output))
    if output.exists():
        raise StudyError("exists; --output names another file", str(output))
    if not output.absolute().parent.is_dir():
        raise StudyError(f"no folder {str(output.parent)!r}", str(output))
    from autopeft.api.draft import draft
    from autopeft.cli.show import print_json, show_draft

    made = draft(model, data, gpus=gpus, hours=hours, changes=changes_of(set_))
    with output.open("x", encoding="utf-8") as file:
        file.write(made.text)
    if json:
        print_json({"study": str(output), **made.to_dict()})
    else:
        show_draft(made, output)


@app.command()
def run(
    study: StudyName,
    n_trials: Annotated[int | None, typer.Option(help="Trials of the study in all.")] = None,
    engine: Annotated[str | None, typer.Option(help="inline or ray: where trials run.")] = None,
    storage: Storage = None,
    set_: Changes = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Open or continue a study and run it to its end."""
    changes = changes_of(set_, n_trials=n_trials, engine=engine, storage=storage)
    from autopeft.api.run import prepare
    from autopeft.cli.progress import Progress
    from autopeft.cli.show import front_of, print_json, show_front, show_next, status_of

    prepared = prepare(study, changes)
    with Progress(prepared, quiet=json or quiet) as progress:
        outcome = prepared.run(progress.watch)
    if json:
        print_json({**status_of(outcome), **front_of(outcome)})
    elif outcome.front.trials:
        show_front(outcome)
        show_next([study, *same_study(set_, storage)], outcome.spec.name)
    if not outcome.front.trials:
        failures = [t.error for t in outcome.trials if t.state == "failed"]
        why = failures[-1] if failures else "none was trained"
        print(f"autopeft: no trial is complete: {why}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def plan(  # noqa: PLR0913
    file: Annotated[str, typer.Argument(help="A configuration, a space or a study.")],
    model: Annotated[str | None, typer.Option(help="Hub id, folder or package.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences of one step.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Tokens of a sequence.")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="Tokens of the longest answer.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu, for its memory.")] = None,
    task: Annotated[str | None, typer.Option(help="What the model is made for.")] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="MEMORY", help="Find settings that fit, such as in 16GB.")
    ] = None,
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Count parameters, memory and FLOPs without training; the points of a space; or a study."""
    from autopeft.api.plan import plan as make_plan
    from autopeft.cli.show import print_json, show_plan

    result = make_plan(
        file,
        model,
        batch_size=batch_size,
        sequence_length=sequence_length,
        new_tokens=new_tokens,
        device=device,
        task=task,
        fit=fit,
        changes=changes_of(set_),
    )
    print_json(result) if json else show_plan(result)


@app.command()
def status(
    study: StudyName, storage: Storage = None, set_: Changes = None, json: Json = False
) -> None:
    """Show trials by state, the best per objective, the hypervolume and the time left."""
    from autopeft.api.outcome import open_study
    from autopeft.cli.show import print_json, show_status, status_of

    outcome = open_study(study, changes=changes_of(set_, storage=storage))
    print_json(status_of(outcome)) if json else show_status(outcome)


@app.command()
def pareto(
    study: StudyName,
    plot: Annotated[Path | None, typer.Option(help="Draw it into a .png or .html file.")] = None,
    max_params: MaxParams = None,
    max_memory: MaxMemory = None,
    storage: Storage = None,
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Show the Pareto front."""
    from autopeft.cli.show import front_of, print_json, say, show_front

    outcome = outcome_within(study, changes_of(set_, storage=storage), max_params, max_memory)
    path = outcome.plot(plot) if plot else None
    if json:
        print_json({**front_of(outcome), **({"plot": str(path)} if path else {})})
        return
    show_front(outcome)
    if path:
        say(f"drawn into {path}")


@app.command()
def compare(
    first: StudyName,
    second: StudyName,
    storage: Storage = None,
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Show two studies of the same objectives beside each other."""
    from autopeft.api.compare import compare as beside
    from autopeft.api.outcome import open_study
    from autopeft.cli.show import print_json, show_versus

    changes = changes_of(set_, storage=storage)
    both = beside(*(open_study(study, changes=changes) for study in (first, second)))
    print_json(both.to_dict()) if json else show_versus(both)


@app.command()
def report(
    study: StudyName,
    output: Annotated[Path, typer.Option(help="Folder for the page.")],
    storage: Storage = None,
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page about the study."""
    from autopeft.api.outcome import open_study
    from autopeft.cli.show import print_json, say

    outcome = open_study(study, changes=changes_of(set_, storage=storage))
    path = outcome.report(output, [study, *same_study(set_, storage)])
    print_json({"report": str(path)}) if json else say(f"written to {path}")


@app.command()
def dashboard(
    study: StudyName,
    port: Annotated[int, typer.Option(help="To listen at; 0 takes a free one.")] = 8765,
    storage: Storage = None,
    set_: Changes = None,
) -> None:
    """Serve that page on this machine while the study runs, with stop, pause and try."""
    from autopeft.cli.show import say
    from autopeft.dashboard.server import dashboard as serve
    from autopeft.study.spec import load_spec

    spec = load_spec(study, changes_of(set_, storage=storage))
    with serve(spec, [study, *same_study(set_, storage)], port) as (address, server):
        say(f"{address} shows {spec.name}; an interrupt ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@app.command()
def rerun(
    study: StudyName,
    trial: Annotated[int, typer.Option(help="Number of a complete trial.")],
    seeds: Annotated[int, typer.Option(help="Fresh trainings of it in all.")] = 5,
    storage: Storage = None,
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Train a trial again with fresh seeds and score it on the test split."""
    from autopeft.api.rerun import prepare_rerun
    from autopeft.cli.progress import Progress
    from autopeft.cli.show import print_json, show_means, trial_of

    prepared = prepare_rerun(study, trial, seeds, changes_of(set_, storage=storage))
    with Progress(prepared, quiet=json) as progress:
        outcome = prepared.run(progress.watch)
    print_json(trial_of(outcome, trial)) if json else show_means(outcome, trial)
    if lacking := outcome.lacking(trial, seeds):
        print(f"autopeft: {lacking}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def export(  # noqa: PLR0913
    study: StudyName,
    output: Annotated[Path, typer.Option(help="A folder that is empty or not there.")],
    trial: Annotated[int | None, typer.Option(help="Number of a complete trial.")] = None,
    pick: Pick = None,
    within: Annotated[str | None, typer.Option(help="With cheapest: how far from best.")] = None,
    max_params: MaxParams = None,
    max_memory: MaxMemory = None,
    format: Format = None,
    uniform: Uniform = None,
    push: PushToHub = None,
    private: Private = None,
    storage: Storage = None,
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Write a trial with its trained tensors and a model card."""
    _check_pick(trial, pick, within)
    from autopeft.api.deploy import TARGETS
    from autopeft.api.export import export as write
    from autopeft.api.hub import check_push, push_to_hub
    from autopeft.cli.show import print_json, say

    if push or private is not None:
        check_push(push)
    outcome = outcome_within(study, changes_of(set_, storage=storage), max_params, max_memory)
    rule = pick or "knee"
    choice = outcome.choose(rule, within) if trial is None else None
    format = format or TARGETS[outcome.spec.deploy].format
    path = write(
        outcome, output, trial=trial, pick=rule, within=within, format=format, uniform=uniform
    )
    url = push_to_hub(path, push, private=private) if push else None
    number, reason = (trial, "") if choice is None else (choice.trial.number, choice.reason)
    if json:
        told = {"trial": number, "reason": reason, "format": format, "output": str(path)}
        print_json({**told, **({"url": url} if url else {})})
        return
    said = [reason, f"trial {number} written to {path} as {format}", url and f"pushed to {url}"]
    for line in filter(None, said):
        say(line)


def _check_pick(trial: int | None, pick: str | None, within: str | None) -> None:
    """Refuses options that do not go together."""
    if trial is not None and pick is not None:
        raise StudyError("excludes --pick", "--trial")
    if within is not None and pick != "cheapest":
        raise StudyError("goes with --pick cheapest", "--within")


@app.command()
def doctor(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Name or path of a study file.")
    ] = None,
    set_: Changes = None,
    json: Json = False,
) -> None:
    """Tell what this machine can do, and what is odd about a study before it costs anything."""
    from autopeft.api.doctor import doctor as look
    from autopeft.cli.show import print_json, show_diagnosis

    diagnosis = look(study, changes_of(set_))
    print_json(diagnosis.to_dict()) if json else show_diagnosis(diagnosis)
    if diagnosis.is_ill:
        raise typer.Exit(2)


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(help="spaces, objectives, studies, methods or samplers.")],
    json: Json = False,
) -> None:
    """List the catalog: spaces, objectives, studies, methods or samplers."""
    from autopeft.cli.catalog import entries
    from autopeft.cli.show import print_json, show_entries

    listed = entries(kind)
    print_json(listed) if json else show_entries(listed)


def main() -> None:
    """Runs a command; 2 is the exit code of bad input, 1 of failure, 130 of an interrupt."""
    write_anything()
    gc.set_threshold(N_ALLOCATED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of what nobody uses
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = app(standalone_mode=False) or 0
    except _UsageError as error:
        _end(error.format_message(), 2)
    except AutoPeftError as error:
        _end(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except OSError as error:
        _end(str(error), 1)
    except Exception as error:
        print(redacted(traceback.format_exc()), file=sys.stderr)
        _end(f"{type(error).__name__}: {error}", 1)
    if code == _INTERRUPTED:
        _end("interrupted; `autopeft run` continues", code)
    sys.exit(code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of autopeft as one line, any other with its source."""
    if issubclass(category, AutoPeftWarning):
        text = f"autopeft: {message}\n"
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(text)


def _end(reason: str, code: int) -> None:
    print(f"autopeft: {' '.join(redacted(reason).split())}", file=sys.stderr)
    sys.exit(code)
