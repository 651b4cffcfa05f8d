"""The study file: which model, task, space and objectives, searched how, run where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator
from sqlalchemy.engine import URL

from autopeft.core.catalog import Reference, read
from autopeft.core.errors import AutoPeftError, StudyError, inside, raised_as
from autopeft.core.quantity import parse_quantity
from autopeft.core.validation import Section, validated

SPEC = "study"
"""The attribute of a record that tells of the study file."""

RECORDED: Any = {
    "model": True,
    "trust_remote_code": True,
    "task": True,
    "space": True,
    "objectives": True,
    "limits": True,
    "deploy": True,
    "search": {"sampler", "strategy", "n_trials", "seed", "baselines", "n_finalists", "n_seeds"},
    "fidelity": {"epochs", "final_epochs"},
}
"""What a record tells of the study file that it was last run with."""

EPOCHS = 1e-4, 1e5
"""Least and most."""

MOST_WORKERS = 100_000
"""Also cores, devices and trials side by side."""

LONGEST = 200
"""Bytes of a name, which is that of a folder too."""

LEAST_MEMORY = 1000**3
"""Bytes; a device with less is a number without its unit."""


class Search(Section):
    """How configurations are proposed.

    Attributes:
        sampler: a name of `SAMPLERS`, or several, of which the one proposes whose recent trials
            added most hypervolume per second.
        strategy: `staged` fixes one part of the space after the other, see `StagedSampler`.
        n_trials: trials of the study in all, baselines and failures included.
        seed: of proposals and of training.
        baselines: fixed configurations that are trained first.
        proposers: one-shot searches, names of `PROPOSERS` or mappings of a `type` and its options,
            which run after the baselines; what they propose are trials on top of `n_trials`.
        warm_start: earlier studies, by name or file, from which `bayes` learns what to expect; by
            default the trials that come with autopeft, and none where the list is empty.
        n_finalists: configurations that are trained again at the end, as the baselines are, and
            scored on the test split; these trainings come on top of `n_trials`, and 0 leaves all
            of them out.
        n_seeds: fresh trainings of each of those; the one that selected it is none of them.
    """

    sampler: str | Annotated[list[str], Field(min_length=1)] = "bayes"
    strategy: Literal["joint", "staged"] = "joint"
    n_trials: int = Field(default=50, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, lt=2**32)
    baselines: list[Any] = Field(default_factory=list)
    proposers: list[dict[str, Any]] = Field(default_factory=list)
    warm_start: list[Any] | None = None
    n_finalists: int = Field(default=2, ge=0, le=1_000)
    n_seeds: int = Field(default=3, ge=2, le=1_000)

    @field_validator("sampler")
    @classmethod
    def _distinct(cls, sampler: str | list[str]) -> str | list[str]:
        if not isinstance(sampler, str) and len({*sampler}) < len(sampler):
            raise ValueError(f"expected every sampler once, got {sampler!r}")
        return sampler

    @field_validator("proposers", mode="before")
    @classmethod
    def _typed(cls, proposers: object) -> object:
        listed = proposers if isinstance(proposers, list) else [proposers]
        return [{"type": each} if isinstance(each, str) else each for each in listed]

    @property
    def samplers(self) -> list[str]:
        """The names that `sampler` has."""
        return [self.sampler] if isinstance(self.sampler, str) else self.sampler

    @property
    def proposing(self) -> list[str]:
        """The names of the samplers that propose."""
        return ["staged"] if self.strategy == "staged" else self.samplers


class FidelitySection(Section):
    """How far trials are trained, and which are stopped early.

    Attributes:
        epochs: `[first, last]` rung; a single number trains every trial that far.
        final_epochs: how far finalists and baselines are trained again; of two lengths all get the
            one with which the best finalist is better. By default the last rung and twice of it.
        reduction: at every rung one of so many goes on.
        stopper: a name of `STOPPERS`.
        signal: the metric that halving ranks by; `auto` is the least noisy one at hand.
        brackets: with two, half of the trials (or groups of them) pass the first rung uncompared;
            with three, a third of them also the second, and so on.
    """

    epochs: float | list[float] = 3.0
    final_epochs: float | list[float] | None = None
    reduction: float = Field(default=3.0, ge=1.1, le=1_000)
    stopper: str = "none"
    signal: str = "auto"
    brackets: int = Field(default=1, ge=1, le=100)

    @field_validator("epochs", "final_epochs")
    @classmethod
    def _two(cls, epochs: float | list[float] | None) -> float | list[float] | None:
        if epochs is None:
            return None
        values = epochs if isinstance(epochs, list) else [epochs]
        if len(values) not in (1, 2) or values != sorted(values):
            raise ValueError(f"expected a number or [first, last], got {epochs!r}")
        least, most = EPOCHS
        if not least <= values[0] <= values[-1] <= most:
            raise ValueError(f"expected epochs from {least:g} to {most:g}, got {epochs!r}")
        return epochs

    @property
    def bounds(self) -> tuple[float, float]:
        """First and last rung."""
        values = self.epochs if isinstance(self.epochs, list) else [self.epochs]
        return values[0], values[-1]

    @property
    def lengths(self) -> tuple[float, ...]:
        """How far finalists and baselines are trained again, ascending; one of these."""
        last, given = self.bounds[1], self.final_epochs
        if given is None:
            return last, 2 * last
        return tuple(given) if isinstance(given, list) else (given,)

    @property
    def stretch(self) -> float:
        """How many times as far as a trial the longer of them goes."""
        return self.lengths[-1] / self.bounds[1]


class Resources(Section):
    """What one worker takes.

    Attributes:
        cpu: cores, which is also the number of threads of a worker; `auto` is one under Ray, and
            inline all that torch finds.
        gpu: devices; a fraction lets several workers share one, and over several each worker
            spreads its backbone. `auto` is a whole device where packs of several trials fill it,
            else the share that a trial is predicted to need, and none on a CPU.
    """

    cpu: float | Literal["auto"] = "auto"
    gpu: float | Literal["auto"] = "auto"

    @field_validator("cpu")
    @classmethod
    def _cores(cls, cpu: float | str) -> float | str:
        if not isinstance(cpu, str) and not 0 < cpu <= MOST_WORKERS:
            raise ValueError(f"must be auto or a number of cores, got {cpu}")
        return cpu

    @field_validator("gpu")
    @classmethod
    def _divisible(cls, gpu: float | str) -> float | str:
        if isinstance(gpu, str):
            return gpu
        if not 0 <= gpu <= MOST_WORKERS or (gpu > 1 and gpu != int(gpu)):
            raise ValueError(f"must be auto, a part of 1, or a whole number of devices, got {gpu}")
        return gpu


class EngineSection(Section):
    """Where trials run.

    Attributes:
        concurrency: workers at a time; `auto` is as many as the resources allow.
        pack: trials that a worker trains side by side on one backbone; `auto` is 1 on a CPU and on
            a GPU as many as are predicted to fit into its memory, up to 16.
        cache: memory in which each worker keeps hidden states of frozen lower layers; 0 keeps none.
        disk_cache: what it keeps on disk besides, such as `20GB`.
        device_memory: of each worker's GPU, such as `80GB`; None is that of this machine's GPU.
        address: of a running Ray cluster that this machine belongs to, such as `host:6379`; None
            starts Ray on this machine. Model and data are read on each machine by the same names,
            and trained tensors are written there, so that `output` is a folder that all share.
    """

    type: Literal["inline", "ray"] = "inline"
    concurrency: int | Literal["auto"] = "auto"
    pack: int | Literal["auto"] = "auto"
    resources: Resources = Field(default_factory=Resources)
    cache: int = 1000**3
    disk_cache: int = 0
    device_memory: float | str | None = None
    address: str | None = None

    @field_validator("cache", "disk_cache", mode="before")
    @classmethod
    def _amount(cls, amount: object) -> int:
        try:
            return 0 if amount == 0 else int(parse_quantity(amount, ""))
        except AutoPeftError as error:
            raise ValueError(error.reason) from None

    @field_validator("concurrency", "pack")
    @classmethod
    def _positive(cls, number: int | str) -> int | str:
        if isinstance(number, int) and not 1 <= number <= MOST_WORKERS:
            expected = f"must be auto or a positive number up to {MOST_WORKERS:,}"
            raise ValueError(f"{expected}, got {number}")
        return number

    @field_validator("device_memory")
    @classmethod
    def _memory(cls, memory: float | str | None) -> float | str | None:
        try:
            amount = None if memory is None else parse_quantity(memory, "")
        except AutoPeftError as error:
            raise ValueError(error.reason) from None
        if amount is not None and amount < LEAST_MEMORY:
            raise ValueError(f"is in bytes; expected an amount such as 80GB, got {memory!r}")
        return memory

    @property
    def cores(self) -> float | None:
        """What each worker takes; None is all that torch finds in the machine."""
        automatic = None if self.type == "inline" else 1.0
        return automatic if self.resources.cpu == "auto" else self.resources.cpu

    @property
    def devices(self) -> float:
        """GPUs over which each worker spreads its backbone, at least one."""
        gpu = self.resources.gpu
        return 1.0 if gpu == "auto" or gpu < 1 else float(gpu)

    @property
    def device_bytes(self) -> float | None:
        """`device_memory` as a number."""
        return None if self.device_memory is None else parse_quantity(self.device_memory, "")


class StudySpec(Section):
    """A study file, checked.

    Attributes:
        model: hub id, folder, or `package:NAME/FOLDER`.
        trust_remote_code: whether code that comes with the model runs.
        task: the mapping that the task is made from.
        space: name, path or mapping.
        objectives: name, path, mapping or list.
        limits: greatest values of known objectives beside those of the space, which they replace.
        deploy: where the winner will run; what cannot be loaded there is not searched.
        storage: URL of the Optuna storage.
        output: folder for trained tensors; by default `runs/NAME`.
        report_to: trackers of experiments, names of `TRACKERS`; a trial is one of their runs.
        device: `auto`, `cpu` or `cuda`.
    """

    name: str
    description: str = ""
    model: str
    trust_remote_code: bool = False
    task: dict[str, Any]
    space: Any
    objectives: Any
    limits: dict[str, Any] = Field(default_factory=dict)
    deploy: str = "native"
    search: Search = Field(default_factory=Search)
    fidelity: FidelitySection = Field(default_factory=FidelitySection)
    engine: EngineSection = Field(default_factory=EngineSection)
    storage: str = ""
    output: str = ""
    report_to: list[str] = Field(default_factory=list)
    device: str = "auto"
    _place: str = PrivateAttr(default="")

    @field_validator("name")
    @classmethod
    def _is_folder(cls, name: str) -> str:
        if not name.isprintable() or len(name.encode()) > LONGEST:
            raise ValueError(f"must be at most {LONGEST} bytes of printable text")
        if {"/", "\\"} & {*name} or name.strip(" .") == "":
            raise ValueError(f"must be a name without / and \\, not of dots only, got {name!r}")
        return name

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_or_more(cls, names: object) -> object:
        return [names] if isinstance(names, str) else names

    @field_validator("model", "storage", "output")
    @classmethod
    def _is_printable(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError(f"must be printable text, got {text[:LONGEST]!r}")
        return text

    @property
    def place(self) -> str:
        """The file of the study, or its name, for errors."""
        return self._place or self.name

    @property
    def storage_url(self) -> str:
        """Where the record is kept."""
        file = URL.create("sqlite", database=f"{self.folder}/study.db")
        return self.storage or file.render_as_string(hide_password=False)

    @property
    def folder(self) -> str:
        """Where trained tensors are kept."""
        return self.output or f"runs/{self.name}"

    def recorded(self) -> dict[str, Any]:
        """What the record is to tell of the study file, as JSON keeps it."""
        return self.model_dump(mode="json", include=RECORDED)

    def as_recorded(self, document: Mapping[str, Any]) -> StudySpec:
        """The study file with what a record tells instead of what the file has come to say."""
        parts = {"search": self.search, "fidelity": self.fidelity}
        known = {k: part.model_copy(update=document.get(k, {})) for k, part in parts.items()}
        return self.model_copy(update={**document, **known})


def load_spec(reference: Reference, changes: Mapping[str, Any] | None = None) -> StudySpec:
    """The study that a name of the catalog, a path or a mapping stands for.

    Args:
        reference: the study.
        changes: values by dotted key, such as `search.n_trials`, that replace those of the file.

    Raises:
        StudyError: file, key, what was expected, what came, the nearest right name.
    """
    with raised_as(StudyError):
        document, place = read("studies", reference)
    with inside(place):
        for key, value in (changes or {}).items():
            document = _changed(document, key.split("."), value, key)
        spec = validated(StudySpec, document)
    spec._place = place
    return spec


def _changed(document: Any, keys: list[str], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise StudyError(f"{document!r} has no keys to set", where)
    head, rest = keys[0], keys[1:]
    inner = _changed(document.get(head, {}), rest, value, where) if rest else value
    return {**document, head: inner}
