"""From a study file to a finished study."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler

from autopeft.api.configurations import baselines_of, on_backbone
from autopeft.api.deploy import deployable
from autopeft.api.earlier import observations
from autopeft.api.frames import on_disk
from autopeft.api.identity import (
    DATA,
    data_identity,
    meaning,
    model_identity,
    objectives_identity,
    space_identity,
    task_identity,
)
from autopeft.api.outcome import Outcome, outcome_of
from autopeft.api.workers import device_memory, device_of, engine_of
from autopeft.core.catalog import Reference, place
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError, inside, unknown
from autopeft.core.extent import EXTENT, cut_told
from autopeft.core.settings import BackboneSettings
from autopeft.engine.engine import Watch
from autopeft.engine.evaluator import MakeEvaluator
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.model.backbone import check_checkpoint, load_reader, meta_backbone
from autopeft.model.checkpoint import trust
from autopeft.model.positions import positions
from autopeft.model.proof import check_sites
from autopeft.objective.limit import parse_limit
from autopeft.objective.objective import Objective, load_objectives
from autopeft.objective.quantity import KNOWN, Known
from autopeft.oneshot.evaluator import Proposing
from autopeft.oneshot.proposer import Problem
from autopeft.oneshot.registry import make_proposer
from autopeft.report.tracking import check_trackers, tracking
from autopeft.search.candidates import corner, least
from autopeft.search.sampler import SAMPLERS, make_sampler
from autopeft.search.sampler import Problem as Sampling
from autopeft.search.stoppers import STOPPERS, Fidelity, make_stopper
from autopeft.search.stopping import Stopper, rungs_between
from autopeft.space.bound import BoundSpace
from autopeft.space.space import SearchSpace
from autopeft.study.record import agree, check_same, find_record, is_recorded, open_record
from autopeft.study.spec import SPEC, StudySpec, load_spec
from autopeft.study.study import Study
from autopeft.study.terms import Terms
from autopeft.task.batches import check_embeddings
from autopeft.task.custom import Custom
from autopeft.task.data import Data
from autopeft.task.registry import task_of
from autopeft.task.task import Task
from autopeft.task.tokens import Examples
from autopeft.train.custom import CustomTrainer
from autopeft.train.trainer import Trainer

_log = logging.getLogger("autopeft")

N_SETTINGS = 24
"""Samples of a space among which the settings that take least memory are looked for."""


@dataclass(frozen=True)
class Prepared:
    """A study file whose parts exist and fit one another; nothing has been trained."""

    spec: StudySpec
    task: Task
    objectives: tuple[Objective, ...]
    space: BoundSpace
    setting: Setting
    known: Mapping[str, Known]
    limits: Mapping[str, float]
    rungs: tuple[float, ...]
    baselines: Mapping[str, PeftConfig]
    lost: tuple[str, ...]
    rerun: tuple[int, int] | None = None
    """A trial that alone is trained again, and with how many fresh seeds in all."""

    def open(self, data: Data) -> Study:
        """The study, made in its storage where there is none.

        Args:
            data: of the task.

        Raises:
            StudyError: it was begun with another space, model, task, data or set of objectives.
        """
        spec = self.spec
        limits = dict(self.limits)
        sampler = self._sampler(limits)
        record = open_record(spec.storage_url, spec.name, self.objectives, sampler)
        agree(record, self._identity(data), meaning)
        if self.rerun is None:
            record.set_user_attr(SPEC, spec.recorded())
        return Study(record, self.space, self.objectives, self._terms(limits))

    def check_record(self, data: Data) -> None:
        """Checks that the study can go on from its record, where there is one.

        Raises:
            StudyError: see `open`; or the storage cannot be opened.
        """
        spec = self.spec
        if is_recorded(spec.storage_url, spec.name):
            record = find_record(spec.storage_url, spec.name)
            there = record.user_attrs.get("identity", {})
            check_same(there, self._identity(data), meaning, spec.name)

    def _sampler(self, limits: Mapping[str, float]) -> BaseSampler:
        search = self.spec.search
        problem = Sampling(
            space=self.space,
            objectives=self.objectives,
            known=self.known,
            limits=limits,
            seed=search.seed,
            earlier=observations(search.warm_start, self.objectives),
        )
        return make_sampler(search.proposing, problem)

    def _identity(self, data: Data) -> dict[str, Any]:
        """What a continued study must agree with, as JSON keeps it."""
        return {
            "space": space_identity(self.space.space),
            "model": model_identity(self.spec.model),
            "task": task_identity(self.task),
            DATA: data_identity(self.task.data, data),
            "objectives": objectives_identity(self.objectives),
            "fidelity.epochs": list(self.rungs),
        }

    def _terms(self, limits: dict[str, float]) -> Terms:
        terms = Terms(
            known=self.known,
            limits=limits,
            n_trials=self.spec.search.n_trials,
            seed=self.spec.search.seed,
            rungs=self.rungs,
            folder=str(Path(self.spec.folder).resolve()),
            baselines=self.baselines,
            proposers=self.spec.search.proposers,
            largest=corner(self.space, 1.0).config,
            n_finalists=self.spec.search.n_finalists,
            n_seeds=self.spec.search.n_seeds,
            lengths=self.spec.fidelity.lengths,
            device=self.setting.device,
            device_memory=device_memory(self.spec, self.setting),
        )
        if self.rerun is None:
            return terms
        number, n_seeds = self.rerun
        bare = replace(terms, n_trials=0, baselines={}, proposers=())
        return replace(bare, rerun=number, n_seeds=n_seeds)

    def examples(self, data: Data) -> Examples:
        """The examples, checked for the backbone."""
        examples = self.task.encode(data, load_reader(self.spec.model, self.task.head))
        check_embeddings([*examples.splits.values()], self.setting.backbone.model)
        return examples

    def evaluator(self, examples: Examples) -> MakeEvaluator:
        """What makes the evaluator of a worker."""
        worker = self.spec.engine
        options: dict[str, Any] = {
            "device": self.spec.device,
            "threads": None if worker.cores is None else max(1, int(worker.cores)),
            "spread": worker.devices > 1,
            "trust_remote_code": self.spec.trust_remote_code,
        }
        if isinstance(self.task, Custom):
            return partial(CustomTrainer, self.spec.model, self.task, **options)
        make = partial(
            Trainer,
            self.spec.model,
            self.task,
            **options,
            cache=worker.cache,
            disk_cache=worker.disk_cache,
            examples=examples if worker.type == "inline" else None,
        )
        if not self.spec.search.proposers:
            return make
        return partial(Proposing, make, partial(_problem, self.spec))

    def stopper(self, n_validation: int) -> Stopper:
        """What decides which trials go on, where so many validation examples tell."""
        fidelity = self.spec.fidelity
        made_from = Fidelity(
            self.rungs,
            fidelity.reduction,
            self.objectives,
            fidelity.signal,
            n_validation,
            fidelity.brackets,
        )
        return make_stopper(fidelity.stopper if len(self.rungs) > 1 else "none", made_from)

    def run(self, watch: Watch | None = None) -> Outcome:
        """Runs the study to its end; `watch` is called with it after every change.

        Raises:
            StudyError: see `open`; the data or the backbone cannot be used.
        """
        with inside(self.spec.place):
            check_checkpoint(self.spec.model, self.setting.backbone)
            engine = engine_of(self.spec, self.setting)
            data = self.task.load()
            examples = self.examples(data)
            if told := cut_told(examples.extent.get("train", {})):
                _log.warning("training data: %s", told)
            make = self.evaluator(examples)
            n_validation = len(data.validation)
            if isinstance(self.task, Custom):
                n_validation = self.task.n_validation
            stopper = self.stopper(n_validation)
            told_to = tracking(self.spec.report_to, self.spec.name, self.spec.folder)
            with self.open(data) as study, told_to as tell:
                study.record.set_user_attr(EXTENT, examples.extent)
                engine.run(study, make, stopper, _both(watch, tell) if watch else tell)
                return outcome_of(self.spec, study.record)


def _problem(spec: StudySpec) -> Problem:
    """What a study searches for, found out in the process that needs it."""
    prepared = prepare(spec.model_copy(update={"report_to": []}))
    return Problem(prepared.space, prepared.objectives, prepared.known, prepared.limits)


def _both(first: Watch, second: Watch) -> Watch:
    def watch(study: Study) -> None:
        first(study)
        second(study)

    return watch


def prepare(study: Reference | StudySpec, changes: Mapping[str, Any] | None = None) -> Prepared:
    """Checks a study file and everything that it names.

    Args:
        study: name of the catalog, path, mapping, or a loaded one.
        changes: values by dotted key, such as `search.n_trials`, that replace those of the file.

    Raises:
        AutoPeftError: the first thing that does not exist or does not fit.
    """
    spec = study if isinstance(study, StudySpec) else load_spec(study, changes)
    with inside(spec.place):
        return _prepared(on_disk(spec))


def _prepared(spec: StudySpec) -> Prepared:
    _check_names(spec)
    task = task_of(spec.task)
    objectives = _objectives(spec, task)
    for metric in task.own_metrics.values():
        metric.found()
    task = task.asked([*(objective.name for objective in objectives), spec.fidelity.signal])
    if spec.trust_remote_code:
        trust(spec.model)
        _log.warning("code that comes with %s runs, as trust_remote_code says", spec.model)
    device = device_of(spec)
    backbone = meta_backbone(spec.model, BackboneSettings(), head=task.head, device=device)
    check_sites(backbone.model)
    length = min(task.longest, positions(backbone.model))
    setting = Setting(backbone, length, device, new_tokens=task.new_tokens)
    left = deployable(_with_limits(spec), spec.deploy, task.head)
    known = known_quantities(setting, _named(objectives, left.space))
    if left.lost:
        told = ", ".join(left.lost)
        _log.warning("%s cannot load %s, which the space goes without", spec.deploy, told)
    with inside("space"):
        space = on_backbone(left.space, backbone)
        limits = _limits(space, known, place("search_spaces", spec.space))
    baselines = baselines_of(spec.search.baselines, backbone)
    for name in [name for name, config in baselines.items() if not left.takes(config)]:
        _log.warning("%s cannot load the baseline %s, which is left out", spec.deploy, name)
        del baselines[name]
    first, last = spec.fidelity.bounds
    return Prepared(
        spec=spec,
        task=task,
        objectives=objectives,
        space=space,
        setting=setting,
        known=known,
        limits=limits,
        rungs=rungs_between(first, last, spec.fidelity.reduction),
        baselines=baselines,
        lost=left.lost,
    )


def _named(objectives: Sequence[Objective], space: Reference) -> list[str]:
    """The quantities that objectives and limits name."""
    limited = [name for name, _ in SearchSpace.load(space).limits]
    return [*(objective.name for objective in objectives), *limited]


def _with_limits(spec: StudySpec) -> Reference:
    """The space of a study with the limits of the study."""
    for name, raw in spec.limits.items():
        parse_limit(name, raw, of=1.0)
    if not spec.limits:
        return spec.space
    document = SearchSpace.load(spec.space).to_dict()
    return {**document, "limits": {**document.get("limits", {}), **spec.limits}}


def _check_names(spec: StudySpec) -> None:
    """Refuses names that a registry or the training does not know."""
    signals = ("auto", "train_loss", "validation_loss", *task_of(spec.task).goals)
    for kind, name, registry, section in (
        *(("sampler", name, SAMPLERS, "search") for name in spec.search.samplers),
        ("stopper", spec.fidelity.stopper, STOPPERS, "fidelity"),
        ("signal", spec.fidelity.signal, signals, "fidelity"),
    ):
        if name not in registry:
            raise StudyError(unknown(kind, name, registry), f"{section}.{kind}")
    for proposer in spec.search.proposers:
        make_proposer(proposer)
    if spec.search.proposers and spec.task.get("type") == "custom":
        raise StudyError("trains by itself, which no custom task does", "search.proposers")
    check_trackers(spec.report_to)


def _objectives(spec: StudySpec, task: Task) -> tuple[Objective, ...]:
    goals = task.goals
    with inside("objectives"):
        objectives = load_objectives(spec.objectives)
        for objective in objectives:
            if not objective.known and objective.name not in goals:
                raise StudyError(unknown("metric", objective.name, goals))
            if not objective.known and objective.goal != goals[objective.name]:
                raise StudyError(f"{objective.name} is not to {objective.goal}")
    names = [objective.name for objective in objectives]
    if spec.task.get("metric", names[0]) not in names:
        reason = f"{spec.task['metric']!r} is none of the objectives {', '.join(names)}"
        raise StudyError(reason, "task.metric")
    return objectives


def _limits(space: BoundSpace, known: Mapping[str, Known], where: str) -> dict[str, float]:
    """The limits as numbers, none of which every configuration exceeds."""
    limits = {}
    with inside(where):
        for name, raw in space.space.limits:
            limits[name] = limit = parse_limit(name, raw, of=space.shape.parameters)
            at_least = _least(space, known[name])
            if at_least > limit:
                raise StudyError(
                    f"no configuration was found that meets {raw}: the least has "
                    f"{at_least:,.0f} {KNOWN[name].unit}, the limit is {limit:,.0f}",
                    f"limits.{name}",
                )
    return limits


def _least(space: BoundSpace, quantity: Known) -> float:
    """The least value of configurations with a placement, as far as samples and a walk find it.

    Of memory it is what the training takes without any placement, in the settings of the space.
    """
    rng = np.random.default_rng(0)
    if not quantity.slow or space.space.is_configuration:
        return quantity.value(least(space, rng, quantity.value))
    samples = [corner(space, 0.0), *(space.draw(rng) for _ in range(N_SETTINGS))]
    return min(quantity.value(replace(drawn.config, placements=())) for drawn in samples)


def run(
    study: Reference | StudySpec,
    *,
    changes: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Opens or continues a study and runs it to its end.

    Args:
        study: name of the catalog, path or mapping.
        changes: values by dotted key that replace those of the file.
        watch: called after every change, with the study.

    Raises:
        AutoPeftError: bad input; failing trials are recorded instead.
    """
    return prepare(study, changes).run(watch)
